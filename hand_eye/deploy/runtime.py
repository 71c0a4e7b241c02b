"""Loads an exported policy. Needs jax, NumPy and flatbuffers, and none of our training.

  policy = runtime.load_policy("policy.hep")
  decision = policy(observation, key, deadline=0.1)

What a loaded policy promises:

- It was compiled, warmed and tested when it was loaded; shapes are static, and nothing
  is compiled later: that would be a `RecompilationError`.
- Fields of another shape or type are an `ObservationError`. Black, frozen and old
  frames, and poses or limits that no robot measures, are answered by HOLD.
- Scores or commands that are not finite become HOLD, with a reason, counted.
- Length, turn and end of a motion are bounded inside the compiled functions, whatever
  the network says.
- Given a deadline, it makes the iterations that fit before it, and says how many.
- A decision says what to send, why, and with what confidence.

It is NOT a safety-rated function. Deadlines are kept only as well as the operating
system allows; the controller needs its own limits and its own watchdog (`watchdog`).
"""

import copy
import functools
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from hand_eye import constraints as constraints_lib
from hand_eye import decision, observations, platforms
from hand_eye.constraints import Constraints
from hand_eye.decision import Cause
from hand_eye.deploy import policy_file, watchdog
from hand_eye.deploy.engine import ENGINES, EngineError, openvino
from hand_eye.deploy.policy_file import FORMAT, PLATFORMS, PolicyFileError
from hand_eye.deploy.program import (
  Clock,
  Engine,
  NoTimeError,
  Program,
  RecompilationError,
)
from hand_eye.presets import NetworkConfig

__all__ = [
  "FORMAT",
  "PLATFORMS",
  "LoadedPolicy",
  "PolicyFileError",
  "RecompilationError",
  "load_policy",
  "read_manifest",
]

# Devices round differently. What the network says of the same commands agrees to this;
# later iterations of CEM may then go other ways, so they are not compared.
GOLDEN_TOLERANCE = 5e-3

# Of weights as NumPy arrays, their definition, and the numbers of commands to score.
MakeEngine = Callable[[Mapping[str, Any], NetworkConfig, Iterable[int]], Engine]


class LoadedPolicy:
  """An exported policy: `policy(observation, key) -> decision.Decision`.

  Made by `load_policy`, compiled and tested. One object is for one robot, whose frames
  it compares; `for_robot` makes more that share all that is large.

  Attributes:
    manifest: what the file says about itself.
    engine: that computes its network, or None.
    frame_size: of the images that it wants, pixels.
    tally: counts decisions, and those that held by their cause.
  """

  def __init__(
    self,
    manifest: dict[str, Any],
    program: Program,
    make_checks: Callable[[], watchdog.FrameChecks],
    constraints: Constraints,
    engine: str | None = None,
  ):
    self.manifest = manifest
    self.engine = engine
    self.frame_size: int = manifest["network"]["frame_size"]
    self.tally = watchdog.Tally()
    self._program, self._constraints = program, constraints
    self._make_checks, self._checks = make_checks, make_checks()
    limits = manifest["workspace"]
    self._bounds = None
    if limits is not None:
      low, high = (np.asarray(limits[end], np.float32) for end in ("low", "high"))
      self._bounds = (low, high)

  def for_robot(self) -> "LoadedPolicy":
    """Returns the same policy for another robot: frames and counts of its own."""
    other = copy.copy(self)
    other.tally, other._checks = watchdog.Tally(), self._make_checks()
    return other

  @property
  def needs(self) -> float:
    """Seconds that a decision with a single iteration is expected to take."""
    return self._program.needs

  def __call__(
    self,
    observation: decision.Observation,
    key: np.ndarray,
    deadline: float | None = None,
  ) -> decision.Decision:
    """Makes one decision, see `decision.answer`.

    Args:
      observation: of this step.
      key: [2] uint32, raw key data; consumed.
      deadline: seconds from now, by which the answer is wanted. The policy makes the
        iterations that it expects to end before it, and HOLDs if that is none.

    Raises:
      ObservationError: for a field or key of another shape or type, or no workspace.
      RecompilationError: the policy was loaded without deadlines and is given one.
    """
    clock = self._program.clock
    start = clock()
    end = None if deadline is None else start + deadline
    # A decision moves images in and a command out, whatever the process guards.
    with jax.transfer_guard("allow"):
      made = self._decide(observation, key, end)
    seconds = clock() - start
    made = made._replace(seconds=seconds)
    if deadline is not None and not seconds <= deadline:
      made = made._replace(on_time=False)
      reason = f"{made.reason} ({1e3 * (seconds - deadline):.1f} ms late)"
      made = made._replace(reason=reason)
    self.tally.add(made)
    return made

  def _decide(
    self, observation: decision.Observation, key: np.ndarray, end: float | None
  ) -> decision.Decision:
    seen = observations.read(observation, self.frame_size)
    problem = self._checks.problem(seen)
    if problem is not None:
      return decision.hold(problem[1], problem[0])
    call = self._program.whole
    if end is not None:
      call = functools.partial(self._program.until, end)
    try:
      return decision.answer(
        call,
        seen,
        key,
        frame_size=self.frame_size,
        bounds=self._bounds,
        constraints=self._constraints,
      )
    except NoTimeError as error:
      return decision.hold(str(error), Cause.NO_TIME)
    except RecompilationError:
      raise
    except RuntimeError as error:  # of JAX or of an engine
      line = policy_file.first_line(error)
      return decision.hold(f"the device failed: {line}", Cause.FAILED)


def load_policy(
  path: str | pathlib.Path,
  *,
  constraints: Constraints | None = None,
  engine: str | MakeEngine | None = None,
  deadlines: bool = True,
  max_age: float = watchdog.MAX_AGE,
  most_identical: int = watchdog.MOST_IDENTICAL,
  clock: Clock = time.perf_counter,
) -> LoadedPolicy:
  """Reads a policy file, compiles it for the default device, warms and tests it.

  Args:
    path: of the file.
    constraints: the user's own limits, in addition to those in the file.
    engine: what computes the network in place of JAX, on the CPU: a name of
      `engine.ENGINES`, or a function that makes one. Everything else stays as it is in
      the file.
    deadlines: also compile what decisions with a deadline need; an engine always does.
    max_age, most_identical: see `watchdog.FrameChecks`.
    clock: seconds that only grow.

  Raises:
    PolicyFileError: if it is missing, damaged, of another format, not for this device
      or engine, or gives another answer than when it was written.
    EngineError: if the engine is not installed or unknown.
    PlatformError: if JAX cannot run on the platform that was asked for.
    ValueError: if the constraints are of another type.
  """
  constraints = constraints_lib.ensure(constraints)
  platforms.check()
  path = pathlib.Path(path)
  manifest, members = policy_file.read(path)
  _check_device(path, manifest, engine)
  try:
    with jax.transfer_guard("allow"):
      program, gap = _tested(manifest, members, engine, deadlines, clock)
  except EngineError:
    raise
  except Exception as error:  # Whatever the libraries below make of such a file.
    raise PolicyFileError(
      f"{path} cannot be run by jax {jax.__version__}"
      f" ({policy_file.first_line(error)}); it was written with"
      f" {manifest['software'].get('jax', 'an unknown version')}. Export it again from"
      f" itself: {policy_file.again(path)}."
    ) from error
  tolerance = ENGINES[engine].tolerance if engine in ENGINES else GOLDEN_TOLERANCE
  if not gap <= tolerance:
    raise PolicyFileError(
      f"{path} fails its self-test: probabilities are {gap:.2g} off the golden answer,"
      f" expected at most {tolerance:g}. Do not use it on this device."
    )
  return LoadedPolicy(
    manifest,
    program,
    functools.partial(watchdog.FrameChecks, max_age, most_identical),
    constraints,
    engine if engine is None else getattr(engine, "__name__", str(engine)),
  )


def _tested(
  manifest: Mapping[str, Any],
  members: Mapping[str, bytes],
  engine: str | MakeEngine | None,
  deadlines: bool,
  clock: Clock,
) -> tuple[Program, float]:
  """The program of a file, warm, and how far it is from the golden answer."""
  golden = policy_file.read_arrays(members["golden.npz"])
  example = decision.Inputs(
    *(golden[f"input/{name}"] for name in decision.Inputs._fields)
  )
  weights = policy_file.unflatten(policy_file.read_arrays(members["weights.npz"]))
  with_parts = deadlines or engine is not None
  names = (policy_file.WHOLE, *(policy_file.PARTS if with_parts else ()))
  functions = {
    name: jax_export.deserialize(bytearray(members[f"{name}.bin"])).call
    for name in names
  }
  count = manifest["servo"]["num_samples"]
  computes: Engine | None = None
  if engine is not None:
    make: MakeEngine = engine if callable(engine) else openvino(engine)
    network = NetworkConfig(**manifest["network"])
    computes = make(weights["params"], network, (1, count))
  iterations = manifest["servo"]["num_iterations"]
  program = Program(functions, weights, example, iterations, clock, computes)
  answers = [program.whole(example)]
  if with_parts:
    answers.append(program.until(np.inf, example))
  # NumPy's, for which NaN is the largest.
  return program, np.max([_golden_gap(made, golden, count) for made in answers])


def _check_device(
  path: pathlib.Path,
  manifest: Mapping[str, Any],
  engine: str | MakeEngine | None,
) -> None:
  """Raises PolicyFileError unless the file has what is needed here."""
  backend = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
  if backend not in manifest["platforms"]:
    raise PolicyFileError(
      f"{path} is for {', '.join(manifest['platforms'])}, and JAX runs on {backend}"
      " here. Set JAX_PLATFORMS, or export it for this device."
    )
  if engine is not None and backend != "cpu":
    raise PolicyFileError(
      f"the engine {engine} is for CPUs, and JAX runs on {backend} here. Load {path}"
      " without an engine, or set JAX_PLATFORMS=cpu."
    )
  architecture = manifest["network"].get("architecture", "figure4")
  if engine is not None and architecture != "figure4":
    raise PolicyFileError(
      f"engines compute networks of the architecture figure4, and that of {path} is"
      f" {architecture}. Load it without an engine."
    )


def read_manifest(path: str | pathlib.Path) -> dict[str, Any]:
  """Returns what a policy file says about itself, after checking its checksums.

  Raises:
    PolicyFileError: if it is missing, damaged or of another format.
  """
  return policy_file.read(pathlib.Path(path))[0]


def _golden_gap(
  made: Mapping[str, Any], golden: Mapping[str, np.ndarray], count: int
) -> float:
  """How far probabilities of the first iteration are from the golden answer."""
  gaps = [
    np.abs(np.asarray(made[name]) - golden[f"output/{name}"]).reshape(-1)[:count]
    for name in ("p_null", "probabilities")
  ]
  return float(np.max(np.concatenate(gaps)))
