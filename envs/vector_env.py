"""Many cells as one Gymnasium vector environment, on spawned processes.

  envs = gymnasium.make_vec("envs.gym_env:hand_eye/Grasp-v0", num_envs=8)

Each process holds its share of the cells and steps them one after the other, so that a
few cores serve any number of cells. What a cell does depends on its seed and actions,
never on the number of processes. A script needs `if __name__ == "__main__":` around
what it does, as a spawned process imports it.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from envs import fleet, rendering
from envs.gym_env import HandEyeGraspEnv
from envs.units import Unit


class HandEyeVectorEnv(gymnasium.vector.VectorEnv[dict[str, Any], np.ndarray, Any]):
  """N cells; see HandEyeGraspEnv for observations, actions and infos of each."""

  def __init__(
    self,
    num_envs: int = 1,
    *,
    num_workers: int = 0,
    units: Sequence[int | Unit] | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    **settings: Any,
  ):
    """Starts the processes.

    Args:
      num_envs: N.
      num_workers: processes, at most N; 0 means one for each core.
      units: a robot for each cell; without, all have that of `settings`.
      autoreset_mode: `NextStep`, `SameStep` or `Disabled`, as in Gymnasium.
      settings: of each HandEyeGraspEnv. With `keep_bin=True` an autoreset does not
        fill the bin, which takes longer than an attempt.

    Raises:
      ValueError: one of them is not as described.
      RenderingUnavailableError: neither EGL nor OSMesa can draw.
    """
    if num_envs < 1 or num_workers < 0:
      raise ValueError(
        f"num_envs is {num_envs} and num_workers {num_workers}, expected at least 1 and"
        " 0"
      )
    if units is not None and len(units) != num_envs:
      raise ValueError(f"units names {len(units)} robots, expected {num_envs}")
    each = [settings | ({"unit": units[i]} if units else {}) for i in range(num_envs)]
    cells = [HandEyeGraspEnv(**one) for one in each]  # which checks them, and no more
    self.num_envs = num_envs
    self.autoreset_mode = AutoresetMode(autoreset_mode)
    self.metadata = {**cells[0].metadata, "autoreset_mode": self.autoreset_mode}
    self.render_mode = cells[0].render_mode
    self.single_observation_space = cells[0].observation_space
    self.single_action_space = cells[0].action_space
    self.observation_space = batch_space(self.single_observation_space, num_envs)
    self.action_space = batch_space(self.single_action_space, num_envs)
    rendering.choose_backend()
    count = min(num_workers or fleet.num_cores(), num_envs)
    self._shares = [share.tolist() for share in np.array_split(range(num_envs), count)]
    self._workers = [
      fleet.Worker(Cells([each[i] for i in share], self.autoreset_mode))
      for share in self._shares
    ]

  def reset(
    self,
    *,
    seed: int | Sequence[int | None] | None = None,
    options: dict[str, Any] | None = None,
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Resets all cells, or those of `options["reset_mask"]`, bool[N].

    Args:
      seed: of the first cell, those of the others count up from it; or one for each.
      options: `keep_bin`, see HandEyeGraspEnv.reset; `reset_mask`.

    Returns:
      Observations, batched, and infos as Gymnasium merges them.
    """
    options = dict(options or {})
    mask = np.ones(self.num_envs, bool)
    if "reset_mask" in options:
      mask = np.asarray(options.pop("reset_mask"))
      if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
        raise ValueError(
          f"reset_mask is {mask}, expected bool[{self.num_envs}], True somewhere"
        )
    if seed is None or isinstance(seed, int | np.integer):
      first = seed
      seed = [None if first is None else int(first) + i for i in range(self.num_envs)]
    if len(seed) != self.num_envs:
      raise ValueError(f"there are {len(seed)} seeds, expected {self.num_envs}")
    answers = self._each(
      "reset",
      [(seed[i], options or None) if mask[i] else None for i in range(self.num_envs)],
    )
    return self._batched([answer[0] for answer in answers]), self._merged(answers)

  def step(
    self, actions: np.ndarray
  ) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Steps all cells side by side; see HandEyeGraspEnv.step.

    Args:
      actions: float32[N, 6].
    """
    actions = np.asarray(actions, np.float32)
    # Checked for all, as none must move where one cannot.
    if actions.shape != (self.num_envs, 6) or not np.isfinite(actions).all():
      raise ValueError(f"actions are {actions}, expected {self.num_envs}x6 finite")
    answers = self._each("step", list(actions))
    return (
      self._batched([answer[0] for answer in answers]),
      np.array([answer[1] for answer in answers], np.float64),
      np.array([answer[2] for answer in answers], np.bool_),
      np.array([answer[3] for answer in answers], np.bool_),
      self._merged(answers),
    )

  def call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
    """Calls a method of each cell, as `observation`, which policies are given."""
    return tuple(self._each("call", [(name, arguments)] * self.num_envs))

  def render(self) -> tuple[Any, ...] | None:
    """A picture of each cell; see HandEyeGraspEnv.render."""
    return None if self.render_mode is None else self.call("render")

  def close_extras(self, **_: Any) -> None:
    """Ends the processes."""
    for worker in self._workers:
      worker.stop()

  def __del__(self) -> None:
    # A vector that failed while it was made has no processes.
    if hasattr(self, "_workers") and not self.closed:
      self.close()

  def _each(self, what: str, arguments: Sequence[Any]) -> list[Any]:
    """One answer from each cell, in order."""
    if self.closed:
      raise gymnasium.error.ClosedEnvironmentError("the vector environment is closed")
    for worker, share in zip(self._workers, self._shares, strict=True):
      worker.send((what, [arguments[i] for i in share]))
    answers: list[Any] = []
    errors: list[Exception] = []
    # All answers are taken before an error is raised, or the next call would get them.
    for worker, share in zip(self._workers, self._shares, strict=True):
      try:
        answer = worker.receive()
      except Exception as error:
        errors.append(error)
        continue
      if answer is None:
        self.close()
        raise fleet.WorkerDiedError(
          f"the process of cells {share[0]} to {share[-1]} died (exit code"
          f" {worker.process.exitcode}): killed, or out of memory; or the script that"
          " makes it lacks `if __name__ == '__main__':`"
        )
      answers += answer[0]
    if errors:
      raise errors[0]
    return answers

  def _batched(self, observations: list[dict[str, Any]]) -> dict[str, Any]:
    space = self.single_observation_space
    out = create_empty_array(space, self.num_envs)
    return concatenate(space, observations, out)

  def _merged(self, answers: list[Any]) -> dict[str, Any]:
    infos: dict[str, Any] = {}
    for i, answer in enumerate(answers):
      infos = self._add_info(infos, answer[-1], i)
    return infos


class Cells:
  """Some cells of one process; what a worker calls, command by command."""

  def __init__(self, settings: list[dict[str, Any]], mode: AutoresetMode):
    self._settings, self._mode = settings, mode
    self._cells: list[HandEyeGraspEnv] = []  # made where they are used
    self._ended: list[bool] = [False] * len(settings)
    self._last: list[Any] = [None] * len(settings)  # observations

  def __call__(self, task: tuple[str, list[Any]]) -> list[Any]:
    if not self._cells:
      self._cells = [HandEyeGraspEnv(**one) for one in self._settings]
    what, arguments = task
    method: Any = {"reset": self._reset, "step": self._step, "call": self._call}[what]
    return [method(i, argument) for i, argument in enumerate(arguments)]

  def _reset(self, i: int, how: tuple[int | None, Any] | None) -> tuple[Any, Any]:
    if how is None:  # not in the mask
      return self._last[i], {}
    self._last[i], info = self._cells[i].reset(seed=how[0], options=how[1])
    self._ended[i] = False
    return self._last[i], info

  def _step(self, i: int, action: np.ndarray) -> tuple[Any, float, bool, bool, Any]:
    if self._ended[i] and self._mode == AutoresetMode.NEXT_STEP:
      observation, info = self._reset(i, (None, None))
      return observation, 0.0, False, False, info
    observation, reward, terminated, truncated, info = self._cells[i].step(action)
    self._ended[i] = terminated or truncated
    if self._ended[i] and self._mode == AutoresetMode.SAME_STEP:
      final = {"final_obs": observation, "final_info": info}
      observation, info = self._reset(i, (None, None))
      info = {**final, **info}
    self._last[i] = observation
    return observation, reward, terminated, truncated, info

  def _call(self, i: int, call: tuple[str, tuple[Any, ...]]) -> Any:
    name, arguments = call
    return getattr(self._cells[i], name)(*arguments)
