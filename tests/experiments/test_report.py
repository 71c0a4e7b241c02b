"""The report: self-contained, complete or saying what is missing, and honest."""

import html.parser
import json
import re
import zipfile

import av
import numpy as np
import pytest
from PIL import Image

from experiments import cli, report, statistics, sweep
from experiments.evaluation import scores
from experiments.pictures import plots
from experiments.reporting import content
from experiments.reporting import evaluated as evaluated_lib
from experiments.reporting import words as words_lib
from hand_eye.deploy import runtime
from tests.data_pipeline import synthetic

RNG = np.random.default_rng(0)
PROTOCOLS = {
  "with_replacement": {"repetitions": 30, "num_attempts": 4, "num_objects": 6},
  "without_replacement": {"repetitions": 2, "num_attempts": 10, "num_objects": 12},
}


def facts(policies):
  """What evaluate.py writes as the identity of a folder."""
  evaluate = {**PROTOCOLS, "num_units": 3, "num_steps": 5, "seed": 1}
  evaluate |= {"objects": "held_out", "arm": "built_in"}
  servo = {"close_ratio": 0.9, "raise_ratio": 0.5, "initial_std": [0.04, 0.04, 0.6]}
  return {
    "evaluate": evaluate,
    "policies": {
      name: {
        "version": "step-8-0123456789ab" if name.startswith("servo") else "",
        "servo": servo if name.startswith("servo") else {},
      }
      for name in policies
    },
    "cell": {"frame_size": 72, "objects_fingerprint": "f", "mujoco": "3.17.0"},
  }


def fill(workdir, make_row):
  """Writes made-up results of every kind into a work folder."""
  for name, seed in (("train", 0), ("held_out", 1)):
    synthetic.write_synthetic_dataset(workdir / "data", name, seed=seed)
  _fill_training(workdir / "train")
  fill_evaluation(workdir / "evaluate", make_row)
  fill_sweep(workdir / "sweep", make_row)
  evaluate = workdir / "evaluate"
  image = RNG.integers(90, 160, (72, 72, 3), np.uint8)
  np.savez(
    evaluate / "overlay.npz",
    pregrasp_image=image,
    image=image[::-1],
    pixels=RNG.uniform(12, 60, (64, 2)),
    probabilities=RNG.random(64),
    start=np.array([30.0, 30.0]),
    chosen=np.array([44.0, 40.0]),
  )
  tiles = np.repeat(RNG.integers(0, 255, (2, 4, 3), np.uint8), 60, 0).repeat(60, 1)
  Image.fromarray(tiles).save(evaluate / "units.png")
  fill_videos(evaluate / "videos")
  (workdir / "demo.json").write_text(json.dumps({"seconds": {"collect": 94.2}}))
  manifest = {
    "format": runtime.FORMAT,
    "step": 8,
    "platforms": ["cpu", "cuda", "tpu"],
    "sha256": {},
  }
  with zipfile.ZipFile(workdir / "policy.hep", "w") as archive:
    archive.writestr("manifest.json", json.dumps(manifest))


def fill_evaluation(folder, make_row, policies=(("random", 24), ("servo", 41))):
  """Of 120 attempts with replacement so many succeed; without, every second one."""
  rows = []
  for name, successes in policies:
    learned = name == "servo"
    for i in range(120):
      rows.append(
        make_row(
          name,
          i < successes,
          repetition=i // 4,
          attempt=i % 4,
          unit=f"held_out-{i % 3:02d}",
          target_properties=["soft", "small"] if i % 5 == 0 else ["rigid", "heavy"],
          actions=["move", "close"] if learned else [],
          p_null=[0.2, 0.4] if learned else [],
          p_best=[0.5, 0.42] if learned else [],
        )
      )
    for i in range(20):
      rows.append(
        make_row(
          name,
          i % 2 == 0,
          protocol="without_replacement",
          repetition=i // 10,
          attempt=i % 10,
          remaining=0 if i == 9 else 3,
        )
      )
  cli.rewrite_jsonl(folder / "rows.jsonl", rows)
  names = [name for name, _ in policies]
  summary = {**scores.summarise(rows, names), "config": facts(names)}
  cli.write_atomically(folder / "summary.json", cli.to_json(summary))


def fill_sweep(folder, make_row):
  rows = []
  for name, drop in (("open_loop", 2), ("servo", 1), ("servo@1000", 3)):
    for step, text in enumerate(
      ("", "camera_shift=0.05", "camera_shift=0.1", "wear=2")
    ):
      rows += [
        make_row(name, i % 4 >= drop, condition=text, repetition=i // 4 + step)
        for i in range(16)
      ]
  content = {"cells": sweep.summarise(rows), "config": facts(["open_loop", "servo"])}
  cli.write_atomically(folder / "sweep.json", cli.to_json(content))


def fill_videos(folder):
  """Two of the gallery's kinds, and a video that the gallery does not list."""
  folder.mkdir(parents=True)
  entries = []
  for kind in ("failure", "success"):
    name = f"servo-{kind}-held_out-00-scene-7.mp4"
    _write_video(folder / name)
    entries.append(
      {"file": name, "policy": "servo", "kind": kind, "unit": "held_out-00",
       "scene_seed": 7, "attempt": 0, "condition": "", "caption": f"a {kind}"}
    )  # fmt: skip
  entries.append({**entries[0], "file": "lost.mp4"})
  (folder / "gallery.json").write_text(json.dumps(entries))
  _write_video(folder / "unlisted.mp4")


def _fill_training(folder):
  log = cli.JsonLines(folder / "metrics.jsonl")
  for step in range(50, 2401, 50):
    loss = 0.55 - 0.03 * step / 2400 + RNG.normal(0, 0.01)
    log.write({"step": step, "split": "train", "loss": loss, "phase": 0})
    if step % 200 == 0:
      row = {"step": step, "split": "held_out", "loss": loss + 0.02}
      for suffix, top in (("", 0.6), ("_zero", 0.68), ("_near", 0.6), ("_far", 0.53)):
        row[f"auc{suffix}"] = 0.5 + (top - 0.5) * step / 2400
        row[f"samples{suffix}"] = 900
      log.write(row)
  ends = {"auc_low": 0.571, "auc_high": 0.629}
  rows = cli.tally(cli.read_jsonl(log.path))
  log.write({**row, **ends, "final": True, "evaluations": 12, "rows": rows})
  config = {"train": {"phases": [[1200, 0.01], [800, 0.07], [400, 1.0]]}}
  (folder / "config.json").write_text(json.dumps(config))
  probability = RNG.random(900) * 0.5
  np.savez(
    folder / "held_out_predictions.npz",
    label=RNG.random(900) < probability,
    probability=probability,
  )


def _write_video(path):
  with av.open(str(path), "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=10)
    stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
    for shade in range(0, 200, 20):
      pixels = np.full((320, 320, 3), (shade, 120, 200 - shade), np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
    container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, make_row):
  folder = tmp_path_factory.mktemp("runs") / "demo"
  fill(folder, make_row)
  for part, program in (("train", "train"), ("sweep", "sweep")):
    arguments = {"config.train.seed": 3, "workdir": folder / part}
    cli.record_command(folder / part, f"experiments.{program}", arguments)
  report.write_report(folder)
  return folder


@pytest.fixture(scope="module")
def page(workdir):
  return (workdir / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(workdir):
  return (workdir / "report.md").read_text(encoding="utf-8")


class Checker(html.parser.HTMLParser):
  """Collects addresses and ids, and checks that tags are closed in order."""

  VOID = ("meta", "br", "img")

  def __init__(self, text):
    super().__init__()
    self.addresses, self.ids, self.tags, self.open = [], [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    for name, value in attrs:
      if name in ("src", "href", "xlink:href", "poster", "data", "action"):
        self.addresses.append(value)
      if name == "id":
        self.ids.append(value)
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.handle_starttag(tag, attrs)
    if tag not in self.VOID:
      self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_the_page_is_well_formed_and_fetches_nothing(page):
  found = Checker(page)
  assert found.open == []
  assert found.addresses
  for address in found.addresses:
    assert address.startswith(("data:", "#")), address[:80]
  assert not re.search(r"url\((?!#)|@import|<script|<link", page)
  assert "default-src 'none'" in page
  assert len(set(found.ids)) == len(found.ids)
  targets = {a[1:] for a in found.addresses if a.startswith("#")}
  assert targets <= set(found.ids)


def test_the_page_shows_every_part(page):
  tags = Checker(page).tags
  # Robustness twice, amount of data, calibration twice, along an attempt twice, grasps,
  # candidates, loss and AUC.
  assert tags.count("svg") == 11
  assert tags.count("video") == 3
  for words in (
    "34.2 %",  # 41 of 120
    "26.3 to 43.0 %",  # Wilson
    # The same as failures.
    "65.8 %<small>57 to 74 %</small><small>N = 120, 3 robots</small>",
    "69.0 %<small>N = 100</small>",  # the paper's random motions
    "1 of 2<small>after 10</small>",  # bins cleared
    "camera moved",
    "0.571 to 0.629",
    "held_out-02",
    "unit-3",
    "cpu, cuda, tpu",
    "collect 1 min 34 s",
    "python -m experiments.train --config.train.seed=3 --workdir=",
    "python -m experiments.sweep --config.train.seed=3 --workdir=",
    "mujoco",
  ):
    assert words in page, words
  assert "not run yet" not in page
  text = re.sub(r"data:[^\"]*|<svg.*?</svg>", "", page, flags=re.DOTALL)
  assert not re.search(r"\b(None|nan|inf)\b", text)


def test_no_address_of_another_machine_is_on_the_page(page, text):
  without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
  assert not re.search(
    r"https?://|//\w+\.\w+/", re.sub('data:[^"]*', "", without_names)
  )
  assert not re.search(r"https?://|\]\(|<img|!\[", text)


def test_wide_tables_scroll_within_the_page(page):
  assert page.count("<table>") == page.count('<div class="scroll"><table>') > 5
  assert ".scroll { overflow-x: auto; }" in page
  # Captions keep the width of the page, so they are no part of what scrolls.
  assert "<caption>" not in page


def test_the_markdown_has_the_tables_of_the_page(page, text):
  row = (
    r"\| servo \(ours\) +\| +20.0 % \(N = 100\) \|"
    r" 65.8 % \(57 to 74 %, N = 120, 3 robots\) \|"
  )
  assert re.search(row, text)
  shown = re.findall(r"<h2>(.*?)</h2>", page)
  assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == shown
  blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
  assert len(blocks) == page.count("<table>")
  for block in blocks:
    assert len({line.count(" | ") for line in block.splitlines()}) == 1
    assert len({len(line) for line in block.splitlines()}) == 1


def test_videos_are_shown_by_what_they_show(page, text):
  films = re.sub(r'src="[^"]*"', "", page[page.index("What it looks like") :])
  order = [films.index(w) for w in ("Successes", "a success", "Failures", "a failure")]
  assert order == sorted(order)
  assert "unlisted" in films
  assert "Corrections" not in films and "lost" not in films
  assert "`servo-success-held_out-00-scene-7.mp4`: a success" in text


@pytest.mark.parametrize("file", ["evaluate/rows.jsonl", "train/metrics.jsonl"])
@pytest.mark.parametrize("change", ["shortened", "doubled"])
def test_rows_that_were_lost_or_doubled_are_not_reported(
  tmp_path, make_row, file, change
):
  fill_evaluation(tmp_path / "evaluate", make_row)
  _fill_training(tmp_path / "train")
  path = tmp_path / file
  rows = cli.read_jsonl(path)
  cli.rewrite_jsonl(path, rows[len(rows) // 2 :] if change == "shortened" else 2 * rows)
  with pytest.raises(cli.UserError, match=rf"{path}.* rows, expected \d+"):
    report.write_report(tmp_path)


def test_a_training_that_has_not_ended_has_no_result(tmp_path):
  _fill_training(tmp_path / "train")
  path = tmp_path / "train" / "metrics.jsonl"
  cli.rewrite_jsonl(path, cli.read_jsonl(path)[:30])
  page = report.write_report(tmp_path).read_text(encoding="utf-8")
  assert words_lib.NOT_FINISHED in page
  assert "AUC on held-out attempts</" not in page


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_broken_predictions_are_one_clear_error(tmp_path, content):
  path = tmp_path / "train" / "held_out_predictions.npz"
  path.parent.mkdir()
  path.write_bytes(content)
  with pytest.raises(cli.UserError, match="predictions.npz: unreadable .*delete it"):
    report.write_report(tmp_path)


def test_without_a_gallery_all_videos_are_shown(tmp_path):
  folder = tmp_path / "evaluate" / "videos"
  folder.mkdir(parents=True)
  for name in ("one", "two"):
    (folder / f"{name}.mp4").write_bytes(b"0")
  assert report.write_report(tmp_path).read_text().count("<video") == 2


def test_an_evaluation_of_a_policy_from_elsewhere_is_a_report(tmp_path, make_row):
  fill_evaluation(tmp_path / "evaluate", make_row)
  page = report.write_report(tmp_path).read_text(encoding="utf-8")
  Checker(page)
  for words in ("How it learned", "What it learned from", "experiments.collect"):
    assert words not in page
  assert page.count("not run yet") == 3  # the sweep, videos and the montage


def test_policies_that_the_last_evaluation_did_not_name_are_said(tmp_path, make_row):
  folder = tmp_path / "evaluate"
  fill_evaluation(folder, make_row)
  log = cli.JsonLines(folder / "rows.jsonl")
  log.write(make_row("oracle", True))
  log.write(make_row("servo", False, condition="wear=2"))
  evaluation = evaluated_lib.read(tmp_path).evaluation
  assert evaluation.others == ("oracle",)
  assert len(evaluation.rows) == 280
  text = report.write_report(tmp_path).read_text(encoding="utf-8")
  assert "the last evaluation did not name them: oracle" in text
  assert "--policies=random,servo,oracle" in text


def test_figures_follow_the_colours_of_the_page(page):
  assert "var(--ink)" in page and "var(--a)" in page
  assert not re.search(r"#01020[0-9]", page)


def test_an_empty_folder_names_what_was_not_run_and_how_to_run_it(tmp_path):
  text = report.write_report(tmp_path).read_text(encoding="utf-8")
  Checker(text)
  assert text.count("not run yet") == 8
  for program in ("collect", "train", "evaluate", "sweep", "export_policy"):
    assert f"python -m experiments.{program}" in text


def test_text_of_others_is_escaped(tmp_path, make_row):
  name = "<script>x</script>|"
  fill_evaluation(tmp_path / "evaluate", make_row, [(name, 3)])
  page = report.write_report(tmp_path)
  assert "<script>" not in page.read_text(encoding="utf-8")
  text = page.with_suffix(".md").read_text(encoding="utf-8")
  assert "| &lt;script>x&lt;/script>\\| |" in text


def test_too_many_videos_are_left_out_one_of_each_kind_stays(tmp_path):
  videos = []
  for name, kind in (("one", "success"), ("two", "success"), ("three", "failure")):
    path = tmp_path / f"{name}.mp4"
    path.write_bytes(b"0" * 100)
    videos.append(evaluated_lib.Video(path, kind, name))
  shown, left_out = content.shown_videos(videos, max_bytes=250)
  assert [(heading, [v.caption for v in films]) for heading, films in shown] == [
    ("Successes", ["one"]),
    ("Failures", ["three"]),
  ]
  assert left_out == ["two.mp4"]


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("evaluate/summary.json", b"{"),
    ("evaluate/summary.json", b'{"policies": {"random": {"attempts": 4}}}'),
    ("sweep/sweep.json", b"[]"),
    ("sweep/sweep.json", b'{"cells": [{}]}'),
    ("evaluate/videos/gallery.json", b'[{"file": "a.mp4"}]'),
    ("evaluate/overlay.npz", b"PK no archive"),
    ("policy.hep", b"no archive"),
  ],
)
def test_a_broken_part_is_named(tmp_path, name, content):
  (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
  (tmp_path / name).write_bytes(content)
  with pytest.raises(Exception, match=name.rpartition("/")[2]) as caught:
    report.write_report(tmp_path)
  assert cli.message_for_user(caught.value)
  assert not (tmp_path / "report.html").exists()


def test_a_row_of_another_version_is_named(tmp_path, make_row):
  fill_evaluation(tmp_path / "evaluate", make_row)
  cli.JsonLines(tmp_path / "evaluate" / "rows.jsonl").write({"policy": "servo"})
  with pytest.raises(cli.UserError, match="rows.jsonl lacks 'protocol'"):
    report.write_report(tmp_path)


@pytest.mark.parametrize(
  ("servo", "randomly", "expected"),
  [
    (
      (90, 120),
      (24, 120),
      "(95 % interval over attempts: +43 to +64); it grasps better",
    ),
    ((27, 120), (24, 120), "does not show that it grasps better"),
    ((2, 120), (24, 120), "it grasps worse"),
  ],
)
def test_the_comparison_says_what_the_interval_allows(servo, randomly, expected):
  rates = [statistics.rate(k, n) for k, n in (servo, randomly)]
  assert expected in words_lib.against(rates[0], "random", rates[1])


def test_the_same_bins_are_compared_where_they_are_known():
  ours, theirs = statistics.rate(60, 120), statistics.rate(48, 120)
  said = words_lib.against(ours, "open_loop", theirs, paired=(-0.1, -0.16, -0.04))
  assert (
    "+10 points (95 % interval over robots: +4 to +16) in the same bins; it" in said
  )
  # One bin has no spread, and says nothing about others.
  said = words_lib.against(ours, "open_loop", theirs, paired=(-0.1, -0.1, -0.1))
  assert "same bins" not in said and "-3 to +22" in said


def test_a_servo_alone_is_not_compared(tmp_path, make_row):
  fill_evaluation(tmp_path / "evaluate", make_row, [("servo", 9)])
  said = words_lib.comparisons(evaluated_lib.read(tmp_path).evaluation)
  assert said[-1] == "No other policy was evaluated to compare it with."


@pytest.mark.parametrize(
  ("row", "expected"),
  [
    ({"auc": 0.6, "auc_low": 0.55, "auc_high": 0.65}, ": better than chance"),
    ({"auc": 0.52, "auc_low": 0.48, "auc_high": 0.56}, "not shown to be better"),
    ({"auc": 0.4, "auc_low": 0.35, "auc_high": 0.45}, "worse than chance"),
    ({"auc": 0.7}, "no interval"),
    ({"auc": None}, None),
  ],
)
def test_the_prediction_says_what_the_interval_allows(row, expected):
  said = words_lib.prediction(row)
  assert said == "" if expected is None else expected in said


def test_durations_are_words():
  assert [words_lib.duration(s) for s in (9.6, 94.2)] == ["10 s", "1 min 34 s"]


@pytest.mark.parametrize(
  ("successes", "expected"), [(24, "within"), (6, "less often"), (60, "more often")]
)
def test_the_base_rate_is_held_against_the_papers(successes, expected):
  assert expected in words_lib.base_rate(statistics.rate(successes, 120))


def test_overfitting_is_said():
  losses = [0.6, 0.5, 0.58]
  rows = [
    {"split": "held_out", "step": s, "loss": v} for s, v in enumerate(losses, start=1)
  ]
  said = words_lib.learning([{"split": "train", "step": 1}], rows)
  assert "lowest at step 2" in said and "overfitted" in said


def test_calibration_of_one_sample_is_drawn():
  svg = plots.calibration(np.array([True]), np.array([0.4]))
  assert svg.startswith("<svg role=")
