"""Figures by unit, family and step are those of their samples; pictures show them."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipeline import frames as frames_lib
from data_pipeline import samples, source
from experiments.fitting import held_out_evaluation, held_out_report
from hand_eye import losses
from tests.data_pipeline import synthetic


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  folder = synthetic.write_synthetic_dataset(
    tmp_path_factory.mktemp("data"), num_attempts=24
  )
  return source.open_dataset(folder)


@pytest.fixture(scope="module")
def predictions(dataset):
  table = samples.samples_of(dataset.attempts)
  rng = np.random.default_rng(0)
  label = table.success > 0.5
  # Knows the label of step 3 and nothing before.
  known = np.where(label, 0.8, 0.2) + rng.uniform(-0.1, 0.1, len(label))
  probability = np.where(table.step == 3, known, rng.uniform(0.3, 0.7, len(label)))
  return held_out_evaluation.Predictions(
    label=label, probability=probability.astype(np.float32), step=table.step,
    num_steps=table.num_steps, distance=table.distance, attempt=table.attempt,
    scene=table.attempt, loss=0.5,
  )  # fmt: skip


def test_groups_cover_the_samples(dataset, predictions):
  groups = held_out_report.groups(dataset.attempts, predictions)
  assert groups["all"]["samples"] == 72 and groups["all"]["attempts"] == 24
  assert set(groups["unit"]) == {f"unit-{i}" for i in range(4)}
  assert set(groups["step"]) == {"1", "2", "3"}
  for by in ("unit", "step"):
    assert sum(row["samples"] for row in groups[by].values()) == 72
  # Both families lie in every bin.
  assert groups["family"]["box"] == groups["family"]["ball"] == groups["all"]
  assert groups["step"]["3"]["auc"] == 1.0 and groups["step"]["1"]["auc"] < 0.9
  last = predictions.step == 3
  row = groups["step"]["3"]
  assert row["calibration_error"] == pytest.approx(
    losses.calibration_error(predictions.label[last], predictions.probability[last])
  )
  right = np.where(
    predictions.label, predictions.probability, 1 - predictions.probability
  )
  assert row["loss"] == pytest.approx(-np.log(right[last]).mean(), rel=1e-5)


def test_the_most_wrong_come_first_and_once_an_attempt(dataset, predictions):
  frames = frames_lib.load_frames(dataset, 2**30)
  surprise = np.where(
    predictions.label, 1 - predictions.probability, predictions.probability
  )
  worst = int(np.argmax(surprise))
  one = held_out_report.most_wrong(dataset, frames, 64, predictions, count=1)
  attempt, step = int(predictions.attempt[worst]), int(predictions.step[worst])
  shown = one[4 : 4 + 192, 4 : 4 + 384 : 1]
  pair = np.concatenate([image[4:68, 4:68] for image in frames.pair(attempt, step)], 1)
  np.testing.assert_array_equal(shown[::3, ::3], pair)
  several = held_out_report.most_wrong(dataset, frames, 64, predictions, count=6)
  assert several.shape[0] > 1.5 * one.shape[0]


def test_files_are_written(dataset, predictions, tmp_path):
  frames = frames_lib.load_frames(dataset, 0)
  images = held_out_report.write(tmp_path, dataset, frames, 64, predictions)
  assert set(images) == {"most_wrong", "reliability"} | {
    f"reliability_{by}" for by in ("unit", "family", "step")
  }
  for name, image in images.items():
    with Image.open(tmp_path / f"{name}.png") as written:
      np.testing.assert_array_equal(np.asarray(written), image)
  written = json.loads((tmp_path / "held_out.json").read_text())
  assert set(written) == {"all", "unit", "family", "step"}


def test_each_group_has_its_own_plot(predictions):
  masks = {f"t = {t}": predictions.step == t for t in (1, 2, 3)}
  masks |= {"of all": np.ones(72, bool), "of none": np.zeros(72, bool)}
  page = held_out_report.reliability_by_group(predictions, masks)
  assert page.shape == (500, 960, 3)  # four panels in a row
  panels = [page[:250, 240 * i : 240 * (i + 1)] for i in range(4)] + [page[250:, :240]]
  # The title apart, which says how many samples; the last one has axes alone.
  coloured = [int((np.ptp(panel[30:], axis=2) > 40).sum()) for panel in panels]
  assert min(coloured[:4]) > 50 and coloured[4] == 0
  assert len(set(coloured[:4])) == 4


def test_certain_and_wrong_is_a_finite_loss(dataset, predictions):
  certain = np.zeros_like(predictions.probability)
  figures = held_out_report._figures(
    held_out_evaluation.Predictions(**{**vars(predictions), "probability": certain}),
    np.ones(72, bool),
  )
  assert np.isfinite(figures["loss"]) and figures["accuracy"] == 0.5
