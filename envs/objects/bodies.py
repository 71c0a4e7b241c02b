"""Where objects are in a compiled cell, and putting them elsewhere."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import mujoco
import numpy as np

from envs.objects.shapes import ObjectSpec


class Body(Protocol):
  """One object's addresses in MuJoCo's arrays."""

  @property
  def qvel(self) -> np.ndarray:
    """int[D]: addresses of its velocities."""

  @property
  def geoms(self) -> np.ndarray:
    """int[G]: its rigid shapes, none if it is soft."""

  def position(self, data: mujoco.MjData) -> np.ndarray:
    """float64[3]: its middle, base frame, m."""

  def place(
    self, data: mujoco.MjData, position: np.ndarray, quaternion: np.ndarray
  ) -> None:
    """Puts it somewhere, at rest and undeformed."""


@dataclasses.dataclass(frozen=True)
class RigidBody:
  """A free joint: position and quaternion."""

  qpos: np.ndarray  # int[7]
  qvel: np.ndarray  # int[6]
  geoms: np.ndarray

  def position(self, data: mujoco.MjData) -> np.ndarray:
    return data.qpos[self.qpos[:3]].copy()

  def quaternion(self, data: mujoco.MjData) -> np.ndarray:
    """float64[4]: (w, x, y, z)."""
    return data.qpos[self.qpos[3:]].copy()

  def place(
    self, data: mujoco.MjData, position: np.ndarray, quaternion: np.ndarray
  ) -> None:
    data.qpos[self.qpos[:3]] = position
    data.qpos[self.qpos[3:]] = quaternion
    data.qvel[self.qvel] = 0.0


@dataclasses.dataclass(frozen=True)
class SoftNodes:
  """The eight nodes of a soft body, each on three sliding joints."""

  qpos: np.ndarray  # int[8, 3]
  qvel: np.ndarray  # int[24]
  home: np.ndarray  # float64[8, 3]: where the nodes are when qpos is zero, m
  geoms: np.ndarray  # int[0]

  def nodes(self, data: mujoco.MjData) -> np.ndarray:
    """float64[8, 3]: where the nodes are, base frame, m."""
    return self.home + data.qpos[self.qpos]

  def position(self, data: mujoco.MjData) -> np.ndarray:
    return self.nodes(data).mean(axis=0)

  def place(
    self, data: mujoco.MjData, position: np.ndarray, quaternion: np.ndarray
  ) -> None:
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, np.asarray(quaternion, np.float64))
    local = self.home - self.home.mean(axis=0)
    target = np.asarray(position) + local @ rotation.reshape(3, 3).T
    data.qpos[self.qpos] = target - self.home
    data.qvel[self.qvel] = 0.0


def find_bodies(
  model: mujoco.MjModel, names: Sequence[str], things: Sequence[ObjectSpec]
) -> tuple[Body, ...]:
  """The objects of a compiled cell, by the names that `add_objects` gave them."""
  return tuple(
    _find_rigid(model, name) if thing.soft is None else _find_soft(model, name)
    for name, thing in zip(names, things, strict=True)
  )


def _find_rigid(model: mujoco.MjModel, name: str) -> RigidBody:
  joint = model.joint(name)
  body = model.body(name).id
  return RigidBody(
    qpos=joint.qposadr[0] + np.arange(7),
    qvel=joint.dofadr[0] + np.arange(6),
    geoms=np.nonzero(model.geom_bodyid == body)[0],
  )


def _find_soft(model: mujoco.MjModel, name: str) -> SoftNodes:
  flex = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_FLEX, name)
  first, count = model.flex_nodeadr[flex], model.flex_nodenum[flex]
  bodies = model.flex_nodebodyid[first : first + count]
  joints = model.body_jntadr[bodies][:, None] + np.arange(3)
  return SoftNodes(
    qpos=model.jnt_qposadr[joints],
    qvel=model.jnt_dofadr[joints].ravel(),
    home=model.body_pos[bodies].copy(),
    geoms=np.empty(0, np.int64),
  )
