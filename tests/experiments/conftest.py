"""What tests of programs share."""

import pytest


@pytest.fixture(scope="session")
def make_row():
  """Makes a row of an evaluation, as `trials.row_of` does, with fields replaced."""

  def make(policy, success, **fields):
    row = {
      "trial": "t", "policy": policy, "policy_version": "",
      "protocol": "with_replacement", "condition": "", "repetition": 0, "attempt": 0,
      "unit": "held_out-1000", "scene_seed": 7, "success": success,
      "gripper_reading": 0.02 if success else 0.0, "drop_test": success,
      "simulator_truth": success, "grasped": "box-000001" if success else "",
      "grade": "held" if success else "missed",
      "target": "box-000001", "target_family": "box", "target_properties": ["rigid"],
      "target_across": 0.004, "target_along": 0.0, "in_bin": 6, "remaining": 6,
      "num_steps": 5, "closed_at_step": 3, "actions": [], "p_null": [], "p_best": [],
      "diverged_in_scene": 0, "rows_of_trial": 1, "software": {},
    }  # fmt: skip
    assert not set(fields) - set(row), "no such field"
    return {**row, **fields}

  return make
