"""From attempts to samples (Section 4.1)."""

import numpy as np

from data_pipeline import attempts as attempts_lib
from data_pipeline import samples as samples_lib
from tests.data_pipeline import synthetic


def _attempts():
  poses = np.array(
    [
      [0.5, 0.0, 0.1, 3.0],
      [0.5, 0.3, 0.1, -3.0],
      [0.5, 0.3, 0.5, -3.0],
      [0.1, 0.2, 0.3, 0.4],
    ],
    np.float32,
  )
  rng = np.random.default_rng(0)
  first = synthetic.synthetic_attempt(rng, num_steps=3, success=True)
  second = synthetic.synthetic_attempt(rng, num_steps=1, success=False)
  return attempts_lib.tabulate(
    [{**first, "poses": poses[:3]}, {**second, "poses": poses[3:]}]
  )


def test_an_attempt_gives_a_sample_for_each_step():
  samples = samples_lib.samples_of(_attempts())
  assert samples.attempt.tolist() == [0, 0, 0, 1]
  assert samples.step.tolist() == [1, 2, 3, 1]
  assert samples.num_steps.tolist() == [3, 3, 3, 1]
  assert samples.success.tolist() == [1, 1, 1, 0]


def test_the_command_leads_to_where_the_gripper_closed():
  samples = samples_lib.samples_of(_attempts())
  np.testing.assert_allclose(
    samples.command[0], [0, 0.3, 0.4, np.sin(-6), np.cos(-6)], atol=1e-6
  )
  np.testing.assert_allclose(samples.command[1], [0, 0, 0.4, 0, 1], atol=1e-6)
  np.testing.assert_allclose(samples.distance, [0.5, 0.4, 0, 0], atol=1e-6)


def test_the_last_step_has_exactly_the_null_command():
  samples = samples_lib.samples_of(_attempts())
  np.testing.assert_array_equal(samples.command[2:], [[0, 0, 0, 0, 1]] * 2)


def test_samples_are_filtered_by_distance():
  samples = samples_lib.samples_of(_attempts())
  assert samples.within(0, 0.01).step.tolist() == [3, 1]
  assert samples.within(0.01, 0.45).step.tolist() == [2]
  assert len(samples.within(1, np.inf)) == 0


def test_dtypes_are_those_of_a_batch():
  samples = samples_lib.samples_of(_attempts())
  assert samples.command.dtype == samples.distance.dtype == np.float32
  assert samples.success.dtype == np.float32
  assert samples.step.dtype == samples.num_steps.dtype == np.int32
  assert samples.attempt.dtype == np.int64
