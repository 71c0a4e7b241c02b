"""A tiny network, how and where its robot may move, and what that robot sees."""

from typing import NamedTuple

import numpy as np

from hand_eye import commands, network, servo
from hand_eye.constraints import Constraints
from hand_eye.deploy import export

CONFIG = network.preset("small", channels=4, image_convs=1, command_convs=1)
WORKSPACE = commands.Workspace(
  low=np.array([0.4, -0.1, 0.0, -3.0], np.float32),
  high=np.array([0.6, 0.1, 0.3, 3.0], np.float32),
)
BOUNDED = servo.ServoConfig(max_step=0.05, max_turn=0.3)
CONSTRAINTS = Constraints(keep_out=((0.4, -0.1, 0.45, 0.1),))


class Observation(NamedTuple):
  pregrasp_image: np.ndarray
  image: np.ndarray
  pose: np.ndarray = np.array([0.5, 0.0, 0.1, 0.2], np.float32)
  step: int = 1
  num_steps: int = 4
  table_height: float = 0.01
  workspace: tuple | None = None
  age: float | None = None


def observation(seed=0, **fields):
  """Noise of a seed for images; other fields as above, or as given."""
  frames = np.random.default_rng(seed).integers(0, 256, (2, 72, 72, 3), dtype=np.uint8)
  return Observation(frames[0], frames[1])._replace(**fields)


def pose(seed):
  """A pose anywhere in the workspace."""
  rng = np.random.default_rng(seed)
  return rng.uniform(WORKSPACE.low, WORKSPACE.high).astype(np.float32)


def write(path, weights):
  """Exports the network for all devices."""
  export.write_policy(
    path,
    weights,
    BOUNDED,
    workspace=WORKSPACE,
    constraints=CONSTRAINTS,
    about={"run": "test"},
  )
