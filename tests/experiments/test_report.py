"""The report: self-contained, complete or saying what is missing, and honest."""

import html.parser
import json
import re
import zipfile

import av
import numpy as np
import pytest
from PIL import Image

from data_pipeline import testing
from experiments import _edge, _results, _words, figures, report
from hand_eye import runtime

RNG = np.random.default_rng(0)


def fill(workdir, servo=(41, 120), randomly=(24, 120)):
  """Writes made-up results of every kind into a work folder."""
  for name, seed in (("train", 0), ("held_out", 1)):
    testing.write_synthetic_dataset(workdir / "data", name, seed=seed)
  _fill_training(workdir / "train")
  evaluate = workdir / "evaluate"
  (evaluate / "videos").mkdir(parents=True)
  policies = {"random": randomly, "servo": servo}
  summary = {name: {"attempts": n, "successes": k} for name, (k, n) in policies.items()}
  (evaluate / "summary.json").write_text(json.dumps({"policies": summary}))
  log = _edge.JsonLines(evaluate / "rows.jsonl")
  for name, (successes, attempts) in policies.items():
    for i in range(attempts):
      row = {"policy": name, "unit": f"held_out-{i % 3:02d}", "success": i < successes}
      log.write(row)
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
  for number in range(2):
    _write_video(evaluate / "videos" / f"servo-held_out-0{number}-7.mp4")
  (workdir / "demo.json").write_text(json.dumps({"seconds": {"collect": 94.2}}))
  manifest = {
    "format": runtime.FORMAT,
    "step": 8,
    "platforms": ["cpu", "cuda", "tpu"],
    "sha256": {},
  }
  with zipfile.ZipFile(workdir / "policy.hep", "w") as archive:
    archive.writestr("manifest.json", json.dumps(manifest))


def _fill_training(folder):
  log = _edge.JsonLines(folder / "metrics.jsonl")
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
  log.write({**row, **ends, "final": True, "evaluations": 12})
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
def page(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "demo"
  fill(workdir)
  return report.write_report(workdir).read_text(encoding="utf-8")


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
  assert tags.count("svg") == 4
  assert tags.count("video") == 2
  for words in (
    "34.2 %",  # 41 of 120
    "26.3 to 43.0 %",  # Wilson
    "0.571 to 0.629",
    "held_out-02",
    "unit-3",
    "cpu, cuda, tpu",
    "collect 1 min 34 s",
    "python -m experiments.train",
    "mujoco",
  ):
    assert words in page, words
  assert "not run yet" not in page
  text = re.sub(r"data:[^\"]*|<svg.*?</svg>", "", page, flags=re.DOTALL)
  assert not re.search(r"\b(None|nan|inf)\b", text)


def test_figures_follow_the_colours_of_the_page(page):
  assert "var(--ink)" in page and "var(--a)" in page
  assert not re.search(r"#01020[0-9]", page)


def test_an_empty_folder_names_what_was_not_run_and_how_to_run_it(tmp_path):
  text = report.write_report(tmp_path).read_text(encoding="utf-8")
  Checker(text)
  assert text.count("not run yet") == 7
  for program in ("collect", "train", "evaluate", "export_policy"):
    assert f"python -m experiments.{program}" in text


def test_text_of_others_is_escaped(tmp_path):
  folder = tmp_path / "evaluate"
  folder.mkdir()
  policies = {"<script>x</script>": {"attempts": 4, "successes": 2}}
  (folder / "summary.json").write_text(json.dumps({"policies": policies}))
  assert "<script>" not in report.write_report(tmp_path).read_text(encoding="utf-8")


def test_too_many_videos_are_named_and_left_out(tmp_path, monkeypatch):
  videos = tmp_path / "evaluate" / "videos"
  videos.mkdir(parents=True)
  for name in ("one", "two"):
    (videos / f"{name}.mp4").write_bytes(b"0" * 100)
  monkeypatch.setattr(report, "MAX_VIDEO_BYTES", 150)
  text = report.write_report(tmp_path).read_text(encoding="utf-8")
  assert text.count("<video") == 1
  assert "Left out to keep this page small: two.mp4" in text


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("evaluate/summary.json", b"{"),
    ("evaluate/overlay.npz", b"PK no archive"),
    ("policy.hep", b"no archive"),
  ],
)
def test_a_broken_part_is_named(tmp_path, name, content):
  (tmp_path / name).parent.mkdir(exist_ok=True)
  (tmp_path / name).write_bytes(content)
  with pytest.raises(Exception, match=name.rpartition("/")[2]) as caught:
    report.write_report(tmp_path)
  assert _edge.message_for_user(caught.value)
  assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
  ("servo", "randomly", "expected"),
  [
    (
      (90, 120),
      (24, 120),
      "It grasps better than random: the difference is +55 points",
    ),
    (
      (41, 120),
      (24, 120),
      "The two intervals overlap, but the difference is +14 points",
    ),
    ((27, 120), (24, 120), "does not show that it grasps better than random"),
    ((2, 120), (24, 120), "It grasps worse than random"),
    ((3, 10), (0, 0), "No random policy was evaluated"),
  ],
)
def test_the_comparison_says_what_the_intervals_allow(servo, randomly, expected):
  rates = [_results.Rate(n, k) for k, n in (servo, randomly)]
  assert expected in _words.compare("servo", rates[0], rates[1])


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
def test_the_prediction_says_what_the_interval_allows(tmp_path, row, expected):
  results = _results.Results(tmp_path, metrics=[{"split": "held_out", **row}])
  said = _words.prediction(results)
  assert said == "" if expected is None else expected in said


def test_durations_are_words():
  assert [_words.duration(s) for s in (9.6, 94.2)] == ["10 s", "1 min 34 s"]


@pytest.mark.parametrize(
  ("successes", "expected"), [(24, "within"), (6, "less often"), (60, "more often")]
)
def test_the_base_rate_is_held_against_the_papers(successes, expected):
  assert expected in _words.base_rate(_results.Rate(120, successes))


def test_overfitting_is_said(tmp_path):
  losses = [0.6, 0.5, 0.58]
  rows = [
    {"split": "held_out", "step": s, "loss": v} for s, v in enumerate(losses, start=1)
  ]
  results = _results.Results(tmp_path, metrics=[*rows, {"split": "train", "step": 1}])
  assert "lowest at step 2" in _words.learning(results)
  assert "overfitted" in _words.learning(results)


def test_calibration_of_one_sample_is_drawn():
  svg = figures.calibration(np.array([True]), np.array([0.4]))
  assert svg.startswith("<svg role=")
