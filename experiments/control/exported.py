"""An exported policy by flags: which file, on what engine, within what limits."""

from typing import Any

from absl import flags

from experiments import cli
from experiments.control import constraint_flags
from hand_eye import engine, runtime


def define_flags() -> None:
  flags.DEFINE_string("policy", "", "The file that export_policy wrote.")
  flags.DEFINE_enum(
    "engine",
    None,
    list(engine.ENGINES),
    "Computes the network on CPUs in place of JAX; needs pip install openvino.",
  )
  constraint_flags.define_flags()


def load(**options: Any) -> runtime.LoadedPolicy:
  """The policy that was asked for, ready; `options` are those of `load_policy`.

  Raises:
    UserError, PolicyFileError, EngineError: something that the caller can mend.
  """
  args = flags.FLAGS
  if not args.policy:
    raise cli.UserError("--policy is needed: the file that export_policy writes")
  return runtime.load_policy(
    args.policy,
    constraints=constraint_flags.from_flags(),
    engine=args.engine,
    **options,
  )
