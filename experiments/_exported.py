"""An exported policy by flags: which file, on what engine, within what limits."""

from typing import Any

from absl import flags

from experiments import _constraints, _edge
from hand_eye import engine, runtime


def define_flags() -> None:
  flags.DEFINE_string("policy", "", "The file that export_policy wrote.")
  flags.DEFINE_enum(
    "engine",
    None,
    list(engine.ENGINES),
    "Computes the network on CPUs in place of JAX; needs pip install openvino.",
  )
  _constraints.define_flags()


def load(**options: Any) -> runtime.LoadedPolicy:
  """The policy that was asked for, ready; `options` are those of `load_policy`.

  Raises:
    UserError, PolicyFileError, EngineError: something that the caller can mend.
  """
  args = flags.FLAGS
  if not args.policy:
    raise _edge.UserError("--policy is needed: the file that export_policy writes")
  return runtime.load_policy(
    args.policy, constraints=_constraints.from_flags(), engine=args.engine, **options
  )
