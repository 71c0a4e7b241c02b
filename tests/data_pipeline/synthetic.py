"""Synthetic attempts for tests, made without a simulator."""

from pathlib import Path

import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from data_pipeline import finish, records, writer
from data_pipeline import plan as plan_lib


def synthetic_attempt(
  rng: np.random.Generator,
  frame_size: int = 72,
  num_steps: int = 3,
  *,
  success: bool | None = None,
  unit: str = "unit-0",
  attempt_id: str | None = None,
  policy: str = "synthetic",
  round_number: int = 0,
) -> records.AttemptRecord:
  """Makes an attempt whose images tell its label.

  The last image of a success has a bright patch in the middle, that of a failure a
  dark one, so that a predictor can learn the zero-command samples.

  Args:
    rng: consumed; the same state gives the same attempt.
    frame_size: height and width of the images, pixels.
    num_steps: T, at least 1.
    success: the label; None draws it with even odds.
    unit: name of the robot.
    attempt_id: None draws one.
    policy: who decided.
    round_number: of the collection.

  Returns:
    A valid record. Motions between steps are a few centimetres long.
  """
  if success is None:
    success = bool(rng.random() < 0.5)
  seed = int(rng.integers(2**62))
  images = np.stack([_smooth_image(rng, frame_size) for _ in range(num_steps + 1)])
  third = frame_size // 3
  images[-1, third:-third, third:-third] = 230 if success else 25
  motions = rng.uniform(-0.05, 0.05, (num_steps, 4)).astype(np.float32)
  motions[-1] = 0
  commands = np.concatenate(
    [motions[:, :3], np.sin(motions[:, 3:]), np.cos(motions[:, 3:])], axis=1
  )
  start = np.array([0.5, 0.0, 0.1, 0.0], np.float32)
  poses = start + np.cumsum(motions, axis=0) - motions
  return records.AttemptRecord(
    pregrasp_image=images[0],
    images=images[1:],
    poses=poses,
    commands=commands,
    success=success,
    gripper_reading=0.03 if success else 0.0,
    drop_test=success,
    simulator_truth=success,
    table_height=0.0,
    unit=unit,
    scene_seed=seed // 8,
    attempt_seed=seed,
    attempt_id=attempt_id or f"synthetic-{seed}",
    objects=["box-0", "ball-1"],
    grasped="box-0" if success else "",
    policy=policy,
    policy_version="1",
    round=round_number,
    software="{}",
  )


def write_synthetic_dataset(
  root: str | Path,
  name: str = "train",
  *,
  num_attempts: int = 24,
  num_shards: int = 2,
  num_units: int = 4,
  first_unit: int = 0,
  frame_size: int = 72,
  num_steps: int = 3,
  policy: str = "synthetic",
  round_number: int = 0,
  seed: int = 0,
) -> Path:
  """Writes a finished dataset of synthetic attempts.

  Args:
    root: the folder that holds datasets.
    name: of the dataset.
    num_attempts: spread evenly over shards and units, half of them successes.
    num_shards: files.
    num_units: robots, named unit-0, unit-1, ... from `first_unit` on.
    first_unit: number in the name of the first robot.
    frame_size: pixels.
    num_steps: T of every attempt.
    policy: of every attempt.
    round_number: of every attempt.
    seed: of everything.

  Returns:
    The dataset's folder, `<root>/<name>/1.0.0`.
  """
  plan = plan_lib.Plan(name, num_shards, frame_size, config={"seed": seed})
  directory = plan_lib.begin(root, plan)
  rng = np.random.default_rng(seed)
  attempts = [
    synthetic_attempt(
      rng,
      frame_size,
      num_steps,
      success=(i // num_units) % 2 == 0,
      unit=f"unit-{first_unit + i % num_units}",
      attempt_id=f"{name}-{i:06d}",
      policy=policy,
      round_number=round_number,
    )
    for i in range(num_attempts)
  ]
  for shard, block in enumerate(np.array_split(np.arange(num_attempts), num_shards)):
    with writer.ShardWriter(directory, shard) as shard_writer:
      for i in block:
        shard_writer.write(attempts[i])
  finish.finalize(directory)
  return directory


def with_cut_image(data: bytes, step: int) -> bytes:
  """Returns a serialized attempt whose image of step 1..T ends early.

  As if it had been written so: a shard with it has checksums that agree.
  """
  example = tf_example_pb2.Example.FromString(data)
  images = example.features.feature["steps/observation/image"].bytes_list
  images.value[step - 1] = images.value[step - 1][:100]
  return example.SerializeToString(deterministic=True)


def _smooth_image(rng: np.random.Generator, size: int) -> np.ndarray:
  """Draws a picture of coarse blocks, which JPEG keeps small and nearly unchanged."""
  block = 8
  coarse = rng.integers(60, 200, (-(-size // block), -(-size // block), 3), np.uint8)
  return coarse.repeat(block, axis=0).repeat(block, axis=1)[:size, :size].copy()
