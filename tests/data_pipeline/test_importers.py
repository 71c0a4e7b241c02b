"""The importer of the published grasping dataset: files, records, and awkward ones."""

import gzip
import json

import numpy as np
import pytest

from data_pipeline import records
from data_pipeline.importers import crc32c, levine2016, tfrecord
from data_pipeline.importers.example import LayoutError
from tests.data_pipeline import made_up

POSE = "transforms/base_T_endeffector/vec_quat_7"


def convert(values, **conventions):
  return levine2016.to_record(
    made_up.to_example(values),
    file="grasping_dataset_057.tfrecord-00000-of-00002",
    number=7,
    attempt_seed=11,
    conventions=levine2016.Conventions(**{"gripper_status": "metres"} | conventions),
  )


def origin(record):
  return json.loads(record["software"])


@pytest.fixture
def values(rng):
  return made_up.published_values(rng)


# --- checksums and files --------------------------------------------------------------


@pytest.mark.parametrize(
  ("data", "expected"),
  [
    # RFC 3720, appendix B.4, and the usual check value.
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (b"", 0),
  ],
)
def test_the_checksum_is_that_of_the_standard(data, expected):
  assert crc32c.crc32c(data) == expected


@pytest.mark.parametrize("length", [4095, 4096, 4097, 8192, 70_001])
def test_long_data_is_checked_as_short_data_is(rng, length):
  data = rng.bytes(length)
  register = 0xFFFFFFFF
  for byte in data:  # Bit by bit, by the definition.
    register ^= byte
    for _ in range(8):
      register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
  assert crc32c.crc32c(data) == register ^ 0xFFFFFFFF


def test_a_frame_begins_as_tensorflows_own_do():
  # Every event file of TensorBoard begins with a record of 24 bytes, and so with these.
  framed = made_up.frame(bytes(24))
  assert framed[:12] == bytes.fromhex("18 00 00 00 00 00 00 00 a3 7f 4b 22")
  assert len(framed) == 24 + 16


@pytest.mark.parametrize("compress", [False, True])
def test_records_are_read_in_order_compressed_or_not(tmp_path, rng, compress):
  expected = [rng.bytes(n) for n in (5, 0, 100_000)]
  content = b"".join(map(made_up.frame, expected))
  path = tmp_path / "some.tfrecord"
  path.write_bytes(gzip.compress(content) if compress else content)
  found = list(tfrecord.read(path))
  assert [raw.data for raw in found] == expected
  assert [raw.number for raw in found] == [0, 1, 2]
  assert not any(raw.problem for raw in found)


def test_a_length_that_begins_like_gzip_is_no_gzip(tmp_path):
  data = bytes(0x8B1F)  # Its length is stored as 1f 8b 00 ...
  path = tmp_path / "some.tfrecord"
  path.write_bytes(made_up.frame(data))
  assert path.read_bytes()[:2] == b"\x1f\x8b"
  assert [raw.data for raw in tfrecord.read(path)] == [data]


@pytest.mark.parametrize(
  ("position", "problem", "after"),
  [
    (2, "length does not fit", None),
    (30, "data does not fit", [b"c" * 40]),
  ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_a_flipped_byte_is_named(tmp_path, position, problem, after, compress):
  framed = [bytearray(made_up.frame(c * 40)) for c in (b"a", b"b", b"c")]
  framed[1][position] ^= 1
  path = tmp_path / "flipped.tfrecord"
  content = b"".join(framed)
  path.write_bytes(gzip.compress(content) if compress else content)
  first, broken, *rest = tfrecord.read(path)
  assert first.data == b"a" * 40
  assert broken.number == 1 and problem in broken.problem and broken.data == b""
  if after is None:  # Nothing says where the next record begins: all of it is lost.
    assert rest == []
    assert broken.unread == 56 - 12 + 56
    assert "nothing after it can be read (100 bytes)" in broken.problem
  else:
    assert [raw.data for raw in rest] == after and broken.unread == 0


def test_a_file_that_does_not_decompress_any_further_says_how_much_is_lost(
  tmp_path, rng
):
  content = b"".join(
    made_up.frame(rng.integers(4, size=300_000, dtype=np.uint8).tobytes())
    for _ in range(4)
  )
  compressed = bytearray(gzip.compress(content))
  middle = len(compressed) // 2
  compressed[middle : middle + 64] = bytes(64)
  path = tmp_path / "flipped.tfrecord"
  path.write_bytes(compressed)
  *_, broken = tfrecord.read(path)
  assert broken.problem and len(compressed) // 8 < broken.unread < len(content)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("left", [57, 60, 90, 111])
def test_a_truncated_file_gives_what_is_whole_and_says_so(tmp_path, left, compress):
  content = made_up.frame(b"a" * 40) + made_up.frame(b"b" * 40)
  path = tmp_path / "cut.tfrecord"
  path.write_bytes(
    gzip.compress(content, 0)[: left + 14] if compress else content[:left]
  )
  *whole, broken = tfrecord.read(path)
  assert [raw.data for raw in whole] == [b"a" * 40]
  assert broken.problem and broken.number == 1


def test_an_empty_file_has_no_record(tmp_path):
  path = tmp_path / "empty.tfrecord"
  path.touch()
  assert list(tfrecord.read(path)) == []


# --- an attempt -----------------------------------------------------------------------


def test_an_attempt_becomes_a_valid_record(values):
  record = convert(values)
  records.validate(record)
  back = records.decode(records.encode(record), images=True)
  assert back["images"].shape == (3, 512, 512, 3)
  assert back["unit"] == "lbr4_12"
  assert back["success"] and back["gripper_reading"] == pytest.approx(0.03)
  assert back["attempt_id"] == "grasping_dataset_057.tfrecord-00000-of-00002:000007"


def test_an_image_belongs_to_the_pose_at_the_end_of_the_step_before(values):
  expected = [(0.5, 0.0, 0.3, 0.1), (0.6, 0.1, 0.2, 0.5), (0.55, 0.2, 0.1, -2.9)]
  names = ["approach", "grasp/0/reached_pose", "grasp/1/reached_pose"]
  for name, (*position, yaw) in zip(names, expected, strict=True):
    values[f"{name}/{POSE}"] = made_up.pose(position, yaw)
  values[f"grasp/2/reached_pose/{POSE}"] = made_up.pose((0.55, 0.2, 0.02), -2.9)
  record = convert(values)
  np.testing.assert_allclose(record["poses"], expected, atol=1e-6)
  shades = record["images"][:, 256, 256, 0]
  np.testing.assert_allclose(shades, [40, 55, 70], atol=2)
  assert record["pregrasp_image"][256, 256, 0] == pytest.approx(20, abs=2)


def test_commands_are_motions_in_the_base_frame(values):
  yaws = (3.0, -3.0)  # Over the cut: +0.28 rad, not -6.
  values[f"approach/{POSE}"] = made_up.pose((0.5, 0.0, 0.3), yaws[0])
  values[f"grasp/0/reached_pose/{POSE}"] = made_up.pose((0.6, -0.1, 0.2), yaws[1])
  turn = 2 * np.pi - 6
  commands = convert(values)["commands"]
  np.testing.assert_allclose(
    commands[0], [0.1, -0.1, -0.1, np.sin(turn), np.cos(turn)], atol=1e-6
  )
  np.testing.assert_array_equal(commands[-1], records.NULL_COMMAND)


def test_a_turn_of_the_base_turns_poses_and_commands_with_it(values):
  # q' = q_z(a) * q: an oracle for the yaw of quaternions that are not tidy.
  from scipy.spatial.transform import Rotation

  turn = Rotation.from_euler("z", 0.7)
  tilt = Rotation.from_euler("xyz", [np.pi + 0.05, 0.08, 1.1])  # Not quite vertical.
  before, after = dict(values), dict(values)
  for target, rotation in ((before, tilt), (after, turn * tilt)):
    target[f"approach/{POSE}"] = [0.5, 0.0, 0.3, *(-rotation.as_quat())]
  yaw = [convert(v)["poses"][0, 3] for v in (before, after)]
  assert yaw[0] == pytest.approx(1.1, abs=0.02)
  assert (yaw[1] - yaw[0]) == pytest.approx(0.7, abs=1e-5)


def test_images_are_the_middle_of_what_was_recorded(values):
  record = convert(values)
  for image in (record["pregrasp_image"], *record["images"]):
    assert np.ptp(image.astype(int)) <= 4  # No margin is left, on either side.


def test_a_single_step_is_an_attempt(rng):
  record = convert(made_up.published_values(rng, 1))
  assert record["poses"].shape == (1, 4)
  np.testing.assert_array_equal(record["commands"], records.NULL_COMMAND[None])


def test_steps_are_counted_where_their_number_is_missing(values):
  del values["num_grasp_steps"]
  assert len(convert(values)["images"]) == 3


def test_the_newer_name_of_the_pregrasp_image_is_known(values):
  values["pregrasp/image/encoded"] = values.pop("grasp/image/encoded")
  assert convert(values)["pregrasp_image"][0, 0, 0] == pytest.approx(20, abs=2)


# --- the label ------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("status", "recorded", "success", "drop_test"),
  [
    (0.011, 1.0, True, False),
    (0.011, 0.0, True, False),  # The paper's rule, whatever the file says.
    (0.009, 1.0, True, True),  # Thin: what the file found was the drop test's.
    (0.009, 0.0, False, False),
    (0.011, None, True, False),
    (0.009, None, False, False),
    (None, 1.0, True, True),
    (None, 0.0, False, False),
  ],
)
def test_the_label_is_the_papers_and_the_files_is_kept(
  values, status, recorded, success, drop_test
):
  for key, value in (("gripper/status", status), ("grasp_success", recorded)):
    values.pop(key)
    if value is not None:
      values[key] = [value]
  record = convert(values)
  assert (record["success"], record["drop_test"]) == (success, drop_test)
  assert origin(record)["recorded_success"] == recorded
  assert ("gripper_reading" in origin(record)["unknown"]) == (status is None)


@pytest.mark.parametrize(
  ("kind", "status", "reading"),
  [("metres", 0.02, 0.02), ("opening", 0.25, 0.02), ("closing", 0.25, 0.06)],
)
def test_a_share_of_the_stroke_becomes_metres(values, kind, status, reading):
  values["gripper/status"] = [status]
  record = convert(values, gripper_status=kind, stroke=0.08)
  assert record["gripper_reading"] == pytest.approx(reading)
  assert origin(record)["gripper_status"] == pytest.approx(status)


def test_what_is_unknown_is_named(rng):
  record = convert(made_up.published_values(rng, robot=None))
  unknown = set(origin(record)["unknown"])
  assert {"simulator_truth", "scene_seed", "grasped", "table_height", "unit"} <= unknown
  assert record["unit"] == "unnamed:grasping_dataset_057"
  named = convert(made_up.published_values(rng), table_height=-0.05)
  assert not {"table_height", "unit"} & set(origin(named)["unknown"])
  assert named["table_height"] == -0.05


# --- the awkward ones -----------------------------------------------------------------


def without(key):
  return lambda values: values.pop(key)


def with_value(key, value):
  return lambda values: values.update({key: value})


@pytest.mark.parametrize(
  ("damage", "words"),
  [
    (without("grasp/1/image/encoded"), r"steps \[1\] have no image"),
    (without("grasp/2/image/encoded"), r"steps \[2\] have no image"),
    (without("grasp/0/image/encoded"), r"steps \[0\] have no image"),
    (with_value("num_grasp_steps", b"2"), "is 2, but 3 steps"),
    (with_value("num_grasp_steps", b"many"), "num_grasp_steps is b'many'"),
    (without("grasp/image/encoded"), "grasp/image/encoded is missing"),
    (without(f"approach/{POSE}"), "approach/.* has 0 numbers, expected 7"),
    (without(f"grasp/1/reached_pose/{POSE}"), "grasp/1/.* has 0 numbers"),
    (
      with_value("grasp/1/image/encoded", made_up.picture(9, 480, 640)),
      "grasp/1/image/encoded has 480 x 640 pixels, expected 512 x 640",
    ),
    (with_value("grasp/2/image/encoded", b"\xff\xd8 no JPEG"), "not a readable JPEG"),
    (with_value(f"approach/{POSE}", [0.1] * 7), "has length 0.200, expected 1"),
    (with_value(f"approach/{POSE}", [np.nan] * 7), "expected finite numbers"),
    (
      with_value(f"approach/{POSE}", [0, 0, 0, 0, np.sqrt(0.5), 0, np.sqrt(0.5)]),
      "90 degrees from level",
    ),
    (with_value("gripper/status", [0.1, 0.2]), "expected one finite number"),
    (
      lambda v: [v.pop(k) for k in ("gripper/status", "grasp_success")],
      "nothing tells whether the attempt succeeded",
    ),
  ],
)
def test_what_is_wrong_is_named(values, damage, words):
  damage(values)
  with pytest.raises(LayoutError, match=words):
    convert(values)


def test_bytes_that_are_no_example_are_named():
  with pytest.raises(LayoutError, match="no tf.train.Example"):
    levine2016.to_record(
      b"\xff" * 20,
      file="f",
      number=0,
      attempt_seed=0,
      conventions=levine2016.Conventions("metres"),
    )


def test_a_last_step_that_moves_is_kept_in_mind_or_refused(values):
  last = np.array(values[f"grasp/2/reached_pose/{POSE}"])
  last[:3] += (0.03, 0.04, -0.1)  # Down is how the paper's arm closes.
  values[f"grasp/2/reached_pose/{POSE}"] = list(last)
  assert origin(convert(values))["last_motion"] == pytest.approx(0.05, abs=1e-6)
  convert(values, max_last_motion=0.06)
  with pytest.raises(LayoutError, match="5.0 cm sideways"):
    convert(values, max_last_motion=0.04)
  del values[f"grasp/2/reached_pose/{POSE}"]
  assert origin(convert(values, max_last_motion=0.04))["last_motion"] is None


def test_the_list_of_keys_is_read_leniently(tmp_path):
  path = tmp_path / "features_057.csv"
  path.write_text("57\n12345\ngrasp/0/image/encoded\ngrasp/image/encoded\n")
  count, keys = levine2016.read_feature_list(path)
  assert count == 12345 and len(keys) == 2
  path.write_text("keys\n")
  with pytest.raises(LayoutError, match="features_057.csv begins with"):
    levine2016.read_feature_list(path)


def test_conventions_are_checked():
  with pytest.raises(LayoutError, match="gripper_status is 'inches', expected one of"):
    levine2016.Conventions("inches")
  with pytest.raises(LayoutError, match="stroke is 0.0"):
    levine2016.Conventions("opening", stroke=0.0)
  with pytest.raises(TypeError, match="gripper_status"):
    levine2016.Conventions()  # What the records do not say is not assumed.
