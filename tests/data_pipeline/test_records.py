"""The schema of an attempt: what goes in comes out, and nothing else goes in."""

import numpy as np
import pytest

from data_pipeline import records
from tests.data_pipeline import synthetic

_IMAGES = ("pregrasp_image", "images")


def test_everything_but_pixels_survives_exactly(attempt):
  decoded = records.decode(records.encode(attempt), images=False)
  assert decoded.keys() == attempt.keys() - set(_IMAGES)
  for name, value in decoded.items():
    if name in ("gripper_reading", "table_height"):
      value = np.float32(value)
      assert value == np.float32(attempt[name]), name
    else:
      np.testing.assert_array_equal(value, attempt[name], err_msg=name)


def test_pixels_survive_within_the_loss_of_jpeg(attempt):
  decoded = records.decode(records.encode(attempt), images=True)
  for name in _IMAGES:
    assert decoded[name].dtype == np.uint8
    error = np.abs(decoded[name].astype(int) - attempt[name].astype(int))
    assert error.mean() < 2, name
    assert error.max() < 30, name


def test_equal_attempts_give_equal_bytes():
  first, second = (
    records.encode(synthetic.synthetic_attempt(np.random.default_rng(3)))
    for _ in range(2)
  )
  assert first == second


def test_jpegs_are_the_pregrasp_image_and_then_the_steps(attempt):
  data = records.encode(attempt)
  decoded = records.decode(data, images=True)
  jpegs = [records.from_jpeg(jpeg) for jpeg in records.jpegs(data)]
  np.testing.assert_array_equal(jpegs[0], decoded["pregrasp_image"])
  np.testing.assert_array_equal(jpegs[1:], decoded["images"])


def test_one_step_and_no_objects_are_an_attempt(rng):
  attempt = synthetic.synthetic_attempt(rng, num_steps=1)
  attempt["objects"] = []
  decoded = records.decode(records.encode(attempt), images=False)
  assert decoded["objects"] == []
  np.testing.assert_array_equal(decoded["commands"], [records.NULL_COMMAND])


def _with_nan(poses):
  poses = poses.copy()
  poses[1, 2] = np.nan
  return poses


@pytest.mark.parametrize(
  ("field", "change", "message"),
  [
    ("pregrasp_image", lambda x: x[:, :-1], "square"),
    ("images", lambda x: x[:, :-1], r"images has shape \(3, 71, 72, 3\), expected"),
    ("images", lambda x: x.astype(np.float32), "dtype float32, expected uint8"),
    ("images", lambda x: list(x), "images is a list, expected a NumPy array"),
    ("images", lambda x: x[:0], "at least 1"),
    ("poses", lambda x: x[:-1], r"poses has shape \(2, 4\), expected \(3, 4\)"),
    ("poses", lambda x: x.astype(np.float64), "dtype float64, expected float32"),
    ("poses", _with_nan, "poses of step 2 is .*nan.*, expected finite"),
    ("commands", lambda x: x[::-1].copy(), "last command .* null command"),
    ("commands", lambda x: x * np.float32(2), r"step 1 has \|\(sin, cos\)\| = 2.0"),
    ("success", lambda x: 1, "success is 1, expected a bool"),
    ("gripper_reading", lambda x: float("nan"), "gripper_reading is nan"),
    ("scene_seed", lambda x: 2**63, "fits into int64"),
    ("round", lambda x: 0.5, "round is 0.5, expected an integer"),
    ("unit", lambda x: 3, "unit is 3, expected a str"),
    ("objects", lambda x: "box", "objects is 'box', expected a list of str"),
  ],
)
def test_a_broken_attempt_is_refused_by_name(attempt, field, change, message):
  attempt[field] = change(attempt[field])
  with pytest.raises(records.RecordError, match=message) as caught:
    records.encode(attempt)
  assert "attempt-7" in str(caught.value)


def test_missing_and_unknown_fields_are_refused(attempt):
  with pytest.raises(records.RecordError, match=r"unknown fields \['colour'\]"):
    records.encode({**attempt, "colour": "red"})
  del attempt["unit"]
  with pytest.raises(records.RecordError, match=r"fields missing: \['unit'\]"):
    records.encode(attempt)


@pytest.mark.parametrize("data", [b"", b"not a protocol buffer", b"\x0a\x00"])
def test_other_bytes_are_refused(data):
  with pytest.raises(records.RecordError, match="not an attempt of schema version"):
    records.decode(data, images=False)


def test_a_broken_image_is_refused(attempt):
  jpeg = records.jpegs(records.encode(attempt))[0]
  with pytest.raises(records.RecordError, match="not a readable JPEG"):
    records.from_jpeg(jpeg[: len(jpeg) // 2])
  with pytest.raises(records.RecordError, match="not a readable JPEG|has shape"):
    records.from_jpeg(jpeg, out=np.empty((64, 64, 3), np.uint8))
