"""Attempts as records of the dataset, of the simulator or of a robot."""

from data_pipeline import records
from envs.attempt import Attempt


def measured(
  attempt: Attempt,
  *,
  policy: str,
  policy_version: str = "",
  round_number: int = 0,
  software: str = "",
) -> records.AttemptRecord:
  """What any robot knows of an attempt: images, poses, commands and the label."""
  return records.AttemptRecord(
    pregrasp_image=attempt.pregrasp_image,
    images=attempt.images,
    poses=attempt.poses,
    commands=attempt.commands,
    success=attempt.success,
    gripper_reading=attempt.gripper_reading,
    drop_test=attempt.drop_test,
    table_height=attempt.table_height,
    unit=attempt.unit,
    attempt_seed=attempt.attempt_seed,
    attempt_id=f"{attempt.unit}-{attempt.attempt_seed}",
    policy=policy,
    policy_version=policy_version,
    round=round_number,
    software=software,
  )


def simulated(attempt: Attempt, **origin) -> records.AttemptRecord:
  """The same with what only the simulator knows; `origin` as for `measured`."""
  record = measured(attempt, **origin)
  record["simulator_truth"] = attempt.simulator_truth
  record["scene_seed"] = attempt.scene_seed
  record["attempt_id"] = f"{attempt.unit}-{attempt.scene_seed}-{attempt.attempt_seed}"
  record["objects"] = list(attempt.objects)
  record["grasped"] = attempt.grasped
  return record
