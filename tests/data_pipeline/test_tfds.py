"""TFDS reads a dataset with no code of ours, and without TensorFlow."""

import json
import os
import subprocess
import sys

import numpy as np

from data_pipeline import records

_READER = """
import json, sys
sys.path = [path for path in sys.path if path not in ("", sys.argv[2])]
import tensorflow_datasets as tfds
source = tfds.builder_from_directory(sys.argv[1]).as_data_source("train")
attempt = source[13]
steps = list(attempt["steps"])
first = steps[0]["observation"]
assert not {"data_pipeline", "tensorflow"} & set(sys.modules)
print(json.dumps({
  "count": len(source),
  "id": attempt["attempt_id"].decode(),
  "unit": attempt["unit"].decode(),
  "objects": [name.decode() for name in attempt["objects"]],
  "success": bool(attempt["success"]),
  "scene_seed": int(attempt["scene_seed"]),
  "poses": [step["observation"]["pose"].tolist() for step in steps],
  "actions": [step["action"].tolist() for step in steps],
  "rewards": [float(step["reward"]) for step in steps],
  "is_first": [bool(step["is_first"]) for step in steps],
  "is_last": [bool(step["is_last"]) for step in steps],
  "is_terminal": [bool(step["is_terminal"]) for step in steps],
  "discount": [float(step["discount"]) for step in steps],
  "dtype": str(first["image"].dtype),
  "pregrasp_image": attempt["pregrasp_image"].tolist(),
  "image": first["image"].tolist(),
}))
"""


def test_tfds_reads_what_we_wrote(finished, dataset):
  root = os.path.dirname(os.path.dirname(records.__file__))
  done = subprocess.run(
    [sys.executable, "-c", _READER, str(finished), root],
    env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    cwd=finished,
    capture_output=True,
    text=True,
    check=True,
  )
  found = json.loads(done.stdout)
  ours = records.decode(dataset[13], images=True)
  assert found["count"] == len(dataset) == 24
  assert found["id"] == ours["attempt_id"] == "train-000013"
  for name in ("unit", "objects", "success", "scene_seed"):
    assert found[name] == ours[name]
  np.testing.assert_array_equal(np.float32(found["poses"]), ours["poses"])
  np.testing.assert_array_equal(np.float32(found["actions"]), ours["commands"])
  assert found["rewards"] == [0, 0, float(ours["success"])]
  assert found["discount"] == [1, 1, 0]
  assert found["is_first"] == [True, False, False]
  assert found["is_last"] == found["is_terminal"] == [False, False, True]
  assert found["dtype"] == "uint8"
  # Another JPEG decoder may round differently.
  for name, image in (("pregrasp_image", ours["pregrasp_image"]),
                      ("image", ours["images"][0])):  # fmt: skip
    assert np.abs(np.array(found[name]) - image.astype(int)).max() <= 2


def test_the_loader_needs_no_tensorflow(finished):
  code = """
import sys
from data_pipeline import loader, source
dataset = source.open_dataset(sys.argv[1])
batch = next(loader.make_loader(dataset, loader.LoaderConfig(4, 64)))
assert batch["image"].shape == (4, 64, 64, 3)
assert "tensorflow" not in sys.modules
"""
  root = os.path.dirname(os.path.dirname(records.__file__))
  subprocess.run(
    [sys.executable, "-c", code, str(finished)],
    env={**os.environ, "PYTHONPATH": root},
    check=True,
  )


def test_writing_needs_neither_grain_nor_jax():
  code = """
import sys
from data_pipeline import records, writer
assert not {"tensorflow", "grain", "jax"} & set(sys.modules)
"""
  root = os.path.dirname(os.path.dirname(records.__file__))
  subprocess.run(
    [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=True
  )
