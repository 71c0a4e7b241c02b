"""An exported policy by flags: which file, on what engine, within what limits."""

from pathlib import Path
from typing import Any

from absl import flags

import hand_eye
from experiments.control import constraint_flags
from hand_eye.deploy import engine, runtime

# The best policy that comes with this project; pretrained/README.md is its card.
SHIPPED = Path(hand_eye.__file__).parent / "pretrained" / "glimpse.hep"


def define_flags() -> None:
  flags.DEFINE_string("policy", str(SHIPPED), "The file that export_policy wrote.")
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
    PolicyFileError, EngineError: something that the user can fix.
  """
  args = flags.FLAGS
  return runtime.load_policy(
    args.policy,
    constraints=constraint_flags.from_flags(),
    engine=args.engine,
    **options,
  )
