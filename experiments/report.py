r"""Writes a work folder's results as one self-contained HTML page.

  python -m experiments.report --workdir=runs/demo

Parts that were not made yet are named together with the command that makes them.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import _edge, _page, _results, _words
from experiments._distances import RANGES
from experiments._results import Rate, Results

# More than this is left out of the page and named, so that the page still opens.
MAX_VIDEO_BYTES = 24_000_000

TITLE = "hand_eye: learned hand-eye coordination for grasping"


def write_report(workdir: str | Path, out: str | Path | None = None) -> Path:
  """Reads `workdir`, writes `out` (default: report.html in it) and returns its path."""
  workdir = Path(workdir)
  results = _results.read(workdir)
  out = Path(out) if out else workdir / "report.html"
  _edge.write_atomically(out, render(results))
  return out


def render(results: Results) -> str:
  """The page, from results that were read already."""
  parts = [
    _headline(results),
    _evaluation(results),
    _pictures(results),
    _learning(results),
    _dataset(results),
    _units(results),
    _export(results),
    _again(results),
  ]
  subtitle = (
    f"Work folder {results.workdir.name}. A predictor of grasp success learned from"
    " attempts of simulated robots; a servo chooses the commands it likes best, with no"
    " calibration (Levine et al. 2016)."
  )
  return _page.page(TITLE, subtitle, parts)


def _headline(results: Results) -> str:
  cards = []
  for name, rate in results.policies.items():
    cards.append(
      (_words.percent(rate.rate), f"success, {name}", _words.interval(*rate.interval))
    )
  final = results.final()
  if final.get("auc") is not None:
    remark = "0.5 is chance"
    if final.get("auc_low") is not None:
      remark = f"95 % interval {final['auc_low']:.2f} to {final['auc_high']:.2f}"
    cards.append((f"{final['auc']:.2f}", "AUC on held-out attempts", remark))
  if train := results.datasets.get("train"):
    cards.append(
      (
        f"{train.total.attempts:,}",
        "attempts to learn from",
        f"{train.samples:,} samples, {len(train.by_unit)} units",
      )
    )
  said = _words.findings(results)
  findings = f'<div class="findings">{_page.bullets(said)}</div>' if said else ""
  return (_page.facts(cards) if cards else "") + findings


def _evaluation(results: Results) -> str:
  heading = "How often it grasps"
  if not results.policies:
    command = _evaluate_command(results)
    return _page.section(heading, _page.missing("Evaluation", command))
  rows = [(name, rate) for name, rate in results.policies.items()]
  caption = (
    "Objects and units never trained on; the units are others than those that chose"
    " the checkpoint, but the families of objects are those that chose it. Intervals"
    " (Wilson) take attempts as independent, though a few share a bin."
  )
  tables = [_rates("policy", rows, caption)]
  by_unit = results.by("policy", "unit")
  if len({unit for _, unit in by_unit}) > 1:
    rows = [(" · ".join(key), rate) for key, rate in sorted(by_unit.items())]
    tables.append(_page.details("By unit", _rates("policy · unit", rows)))
  if results.detectors:
    header = ("against the simulator's truth", "precision", "recall")
    cells = [
      (name, *(_share(values.get(figure)) for figure in ("precision", "recall")))
      for name, values in results.detectors.items()
    ]
    table = _page.table(header, cells, numbers=(1, 2))
    tables.append(_page.details("How far the labels can be trusted", table))
  return _page.section(heading, *tables)


def _share(value: float | None) -> str:
  return "undefined" if value is None else f"{100 * value:.1f} %"


def _rates(name: str, rows: Sequence[tuple[str, Rate]], caption: str = "") -> str:
  cells = []
  for label, rate in rows:
    low, high = rate.interval
    cells.append(
      (
        label,
        f"{100 * rate.rate:.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f} %",
        _page.interval_bar(rate.rate, low, high),
        str(rate.successes),
        str(rate.attempts),
      )
    )
  header = (name, "success", "95 % interval", "0 to 100 %", "successes", "attempts")
  return _page.table(header, cells, numbers=(1, 2, 4, 5), raw=(3,), caption=caption)


def _pictures(results: Results) -> str:
  from experiments import figures

  parts = []
  if results.overlay is not None:
    overlay = results.overlay
    drawn = figures.candidates(
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
    parts.append(_page.figure(drawn, caption))
  shown, left_out, size = [], [], 0
  for video in results.videos:
    size += video.stat().st_size
    if size > MAX_VIDEO_BYTES:
      left_out.append(video.name)
    else:
      name = video.stem.replace("_", " ").replace("-", " ")
      shown.append(_page.figure(_page.video(video), name))
  if shown:
    parts.append(_page.columns(*shown, narrow=True))
  if left_out:
    words = f"Left out to keep this page small: {', '.join(left_out)}."
    parts.append(_page.paragraph(words, "soft"))
  if not parts:
    command = _evaluate_command(results)
    parts.append(_page.missing("Pictures and videos", command))
  return _page.section("What it looks like", *parts)


def _learning(results: Results) -> str:
  from experiments import figures

  heading = "How it learned"
  if not results.metrics:
    return _page.section(heading, _page.missing("Training", _train_command(results)))
  curves = figures.learning_curves(
    results.split("train"), results.split("held_out"), _boundaries(results)
  )
  parts = [
    _page.columns(*(_page.figure(curve) for curve in curves)),
    _page.paragraph(
      "Dotted lines: the curriculum moves on, from commands that close where the"
      " gripper is, to near commands, to all of them.",
      "soft",
    ),
    _page.paragraph(_words.learning(results)),
  ]
  final = results.final()
  ranges = [
    (label, final.get(f"auc{suffix}"), final.get(f"auc{suffix}_low"),
     final.get(f"auc{suffix}_high"), final.get(f"samples{suffix}"))
    for suffix, label, _, _ in RANGES
  ]  # fmt: skip
  rows = [
    (
      label,
      f"{auc:.3f}",
      f"{low:.3f} to {high:.3f}" if low is not None and high is not None else "",
      f"{count:,}" if count else "",
    )
    for label, auc, low, high, count in ranges
    if auc is not None
  ]
  if rows:
    header = ("commands", "AUC", "95 % interval", "held-out samples")
    parts.append(_page.table(header, rows, numbers=(1, 2, 3)))
  if results.predictions is not None and len(results.predictions["label"]):
    drawn = figures.calibration(
      results.predictions["label"], results.predictions["probability"]
    )
    caption = (
      "Reliability on held-out attempts: a calibrated network lies on the dashed line."
      " Ten bins of equally many samples, 95 % intervals."
    )
    parts.append(_page.figure(drawn, caption, "small"))
  return _page.section(heading, *parts)


def _boundaries(results: Results) -> list[int]:
  phases = results.config.get("train", {}).get("phases", ())
  ends, step = [], 0
  for steps, _ in phases[:-1]:
    step += steps
    ends.append(step)
  return ends


def _dataset(results: Results) -> str:
  heading = "What it learned from"
  parts = []
  for name, label in (("train", "Training"), ("held_out", "Held-out")):
    facts = results.datasets.get(name)
    if facts is None:
      command = _collect_command(results, name)
      parts.append(_page.missing(f"{label} attempts", command))
    elif facts.problem:
      parts.append(_page.paragraph(f"{label} attempts: {facts.problem}", "missing"))
    else:
      caption = (
        f"{label} attempts: {facts.total.attempts:,}, {facts.samples:,} samples,"
        f" {facts.size_bytes / 1e6:,.1f} MB"
      )
      rows = [*facts.by_unit.items(), ("all units", facts.total)]
      parts.append(_rates("unit", rows, caption))
  return _page.section(heading, *parts)


def _units(results: Results) -> str:
  heading = "The robots"
  if results.units_image is None:
    command = _evaluate_command(results)
    return _page.section(heading, _page.missing("Montage of the cameras", command))
  caption = (
    "What each unit's camera sees: cameras, lights, finger wear and friction differ,"
    " and no policy is told how."
  )
  picture = _page.image(results.units_image, "One frame of every unit's camera")
  return _page.section(heading, _page.figure(picture, caption))


def _export(results: Results) -> str:
  heading = "The exported policy"
  if results.policy_file is None:
    command = (
      f"python -m experiments.export_policy --checkpoint={_checkpoints(results)}"
      f" --out={results.workdir / 'policy.hep'}"
    )
    return _page.section(heading, _page.missing("Export", command))
  size = results.policy_file.stat().st_size
  rows = [("file", f"{results.policy_file.name}, {size / 1e6:.2f} MB")]
  for key, value in sorted(results.policy_manifest.items()):
    if isinstance(value, str | int | float | bool):
      rows.append((key.replace("_", " "), str(value)))
    elif isinstance(value, list) and all(isinstance(v, str | int) for v in value):
      rows.append((key.replace("_", " "), ", ".join(map(str, value))))
  words = (
    "The file's checksums were checked for this page. When it was exported it was"
    " loaded again and gave its stored answer to its stored input, as it must wherever"
    " it is loaded."
  )
  return _page.section(
    heading, _page.paragraph(words), _page.table(("", ""), rows, wrap=(1,))
  )


def _again(results: Results) -> str:
  workdir = results.workdir
  commands = "\n".join(
    (
      "# everything, from nothing",
      f"make demo WORKDIR={workdir}",
      "# stage by stage (each has --help)",
      _collect_command(results, "train"),
      _collect_command(results, "held_out"),
      _train_command(results),
      _evaluate_command(results),
      f"python -m experiments.export_policy --checkpoint={_checkpoints(results)}"
      f" --out={workdir / 'policy.hep'}",
      f"python -m experiments.report --workdir={workdir}",
    )
  )
  rows = [(name, version) for name, version in _edge.versions().items()]
  inner = _page.table(("software", "version"), rows)
  took = ", ".join(
    f"{name} {_words.duration(s)}" for name, s in results.seconds.items()
  )
  return _page.section(
    "Run it again",
    _page.paragraph(f"The last `make demo` took: {took}." if took else "", "soft"),
    _page.code(commands),
    _page.details("Versions", inner),
  )


def _checkpoints(results: Results) -> Path:
  return results.workdir / "train" / "checkpoints"


def _collect_command(results: Results, name: str) -> str:
  data = results.workdir / "data"
  return f"python -m experiments.collect --workdir={data} --name={name}"


def _evaluate_command(results: Results) -> str:
  return (
    f"python -m experiments.evaluate --checkpoint={_checkpoints(results)}"
    f" --workdir={results.workdir / 'evaluate'}"
  )


def _train_command(results: Results) -> str:
  data = results.workdir / "data"
  return (
    f"python -m experiments.train --data={data / 'train' / '1.0.0'}"
    f" --held_out={data / 'held_out' / '1.0.0'} --workdir={results.workdir / 'train'}"
  )


def define_flags() -> None:
  flags.DEFINE_string("workdir", "runs/demo", "Folder that holds the results.")
  flags.DEFINE_string("out", "", "The page to write. Default: report.html in it.")


def main(_: Sequence[str]) -> None:
  workdir = _edge.require_folder(flags.FLAGS.workdir, "workdir", "`make demo`")
  path = write_report(workdir, flags.FLAGS.out or None)
  print(f"Report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
  _edge.run(main, define_flags)
