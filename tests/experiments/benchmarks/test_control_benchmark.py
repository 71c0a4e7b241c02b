"""The control benchmark runs, counts right, and its peer is the same network."""

import json

import jax
import numpy as np
import pytest

from experiments.benchmarks import control, control_torch
from hand_eye import inference, network


def test_multiply_adds_are_those_of_the_paper_network():
  """By hand: 236, 79, 27 and 14 pixels; the first 3x3 convolution once an image."""
  image, command = control.multiply_adds(network.PRESETS["levine2016"])
  first = 27**2 * 9 * 64**2
  assert image == 236**2 * 36 * 6 * 64 + 6 * 79**2 * 25 * 64**2 + first
  final = (12**2 + 10**2 + 8**2) * 9 * 64**2
  assert command == 5 * first + final + 4096 * 64 + 64 * 64 + 64


@pytest.mark.slow
def test_the_control_benchmark_measures_what_it_prints(tmp_path, monkeypatch):
  tiny = network.preset("small", channels=4, image_convs=1, command_convs=1)
  monkeypatch.setitem(network.PRESETS, "small", tiny)
  monkeypatch.setattr(control_torch, "is_installed", lambda: False)
  result = control.benchmark(
    tmp_path, presets=["small"], rounds=2, tile_images=True, robots=3
  )
  (row,) = result["presets"]
  names = {"plain", "ours", "plain, images tiled", "ours, 3 robots"}
  assert names <= set(row["median_ms"])
  assert min(row["best_ms"].values()) > 0 and row["floor_ms"]["float32"] > 0
  needed = row["multiply_adds"]
  assert needed["decision"] == needed["image"] + 193 * needed["command"]
  assert json.loads((tmp_path / "control.json").read_text()) == result
  text = control.describe(result)
  assert "floor, float32" in text and "GFLOP/s" in text and "torch was left out" in text


def test_the_peer_is_the_same_network():
  torch = pytest.importorskip("torch")
  config = network.preset("small", crop_size=61, channels=8)
  variables = control.random_variables(config)
  encode, score = control_torch.halves(config, variables, "float32", False)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (1, 61, 61, 6), dtype=np.uint8)
  commands = rng.normal(size=(5, 5)).astype(np.float32)
  with torch.inference_mode():
    found = score(encode(torch.from_numpy(images)), torch.from_numpy(commands)).numpy()
  ours = inference.build(config)
  features = jax.jit(ours.encode)(*variables, images)
  expected = jax.jit(ours.score)(*variables, features, commands)
  np.testing.assert_allclose(found, expected, atol=1e-3 * np.std(expected) + 1e-4)
