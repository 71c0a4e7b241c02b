"""What the report shows of the servo: one decision as in Figure 2, and videos."""

from experiments.reporting import blocks
from experiments.reporting import commands as commands_lib
from experiments.reporting.evaluated import Evaluated, Video

# More than this is left out of the page and named, so that the page still opens.
MAX_VIDEO_BYTES = 24_000_000

_KINDS = {
  "success": "Successes",
  "correction": "Corrections: something moved during the attempt",
  "failure": "Failures",
  "": "Other videos",
}


def pictures(found: Evaluated) -> blocks.Section:
  """One decision as in Figure 2, and the videos by what they show."""
  from experiments.pictures import plots

  parts: list[blocks.Block] = []
  if found.overlay is not None:
    overlay = found.overlay
    drawn = plots.candidates(
      overlay["pregrasp_image"],
      overlay["image"],
      overlay["pixels"],
      overlay["probabilities"],
      start=overlay.get("start"),
      chosen=overlay.get("chosen"),
    )
    caption = (
      "As in Figure 2: where each candidate command of one decision would put the"
      " gripper, coloured by the success that the network predicts for closing there."
    )
    parts.append(blocks.Picture(drawn, caption))
  parts += _videos(found.videos)
  specs = found.evaluation.specs.values() if found.evaluation else ()
  if not parts and specs and not any(spec.get("servo") for spec in specs):
    words = "Nothing was filmed: the servo is, and it was not among the policies."
    parts.append(blocks.Text(words, "soft"))
  elif not parts:
    command = commands_lib.evaluate(found.workdir, found.evaluation)
    parts.append(blocks.Missing("Pictures and videos", command))
  return blocks.Section("What it looks like", parts)


def _videos(videos: list[Video]) -> list[blocks.Block]:
  by_kind = {kind: [video for video in videos if video.kind == kind] for kind in _KINDS}
  # One of each kind after the other, so that none is left out for another's sake.
  turns = [
    by_kind[kind][turn]
    for turn in range(max(map(len, by_kind.values())))
    for kind in by_kind
    if turn < len(by_kind[kind])
  ]
  shown, left_out, size = set(), [], 0
  for video in turns:
    more = video.path.stat().st_size
    if size + more > MAX_VIDEO_BYTES:
      left_out.append(video.path.name)
    else:
      size += more
      shown.add(video.path)
  parts: list[blocks.Block] = []
  for kind, heading in _KINDS.items():
    films = [blocks.Video(v.path, v.caption) for v in by_kind[kind] if v.path in shown]
    if films:
      parts += [blocks.Heading(heading), blocks.Columns(films, narrow=True)]
  if left_out:
    words = f"Left out to keep this page small: {', '.join(left_out)}."
    parts.append(blocks.Text(words, "soft"))
  return parts
