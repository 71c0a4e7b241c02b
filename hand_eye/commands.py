"""Poses and motion commands of the gripper (Section 4.1).

pose: [..., 4] float32, (x, y, z, yaw) in the robot base frame, metres and radians. z is
  the height of the fingertips.
command: [..., 5] float32, the motion from one pose to another, in the robot base frame:
  (dx, dy, dz) in metres and (sin, cos) of the change in yaw.

All functions work on any leading batch dimensions that broadcast.
"""

import math

import chex
import jax.numpy as jnp
import numpy as np

# No motion: close the gripper here. In NumPy, so that importing does not start JAX.
NULL_COMMAND = np.array([0.0, 0.0, 0.0, 0.0, 1.0], np.float32)
NULL_COMMAND.flags.writeable = False


@chex.dataclass(frozen=True)
class Workspace:
  """The box of poses that the gripper may be sent to.

  low: [4] smallest (x, y, z, yaw), metres and radians. z is the table height.
  high: [4] largest (x, y, z, yaw). For a free yaw: -pi and pi.
  """

  low: chex.Array
  high: chex.Array

  def contains(self, pose: chex.Array) -> chex.Array:
    """Returns [...] bool: is the pose [..., 4] inside, boundary included?"""
    return jnp.all((pose >= self.low) & (pose <= self.high), axis=-1)


def wrap_angle(angle: chex.Array) -> chex.Array:
  """Wraps radians into (-pi, pi]."""
  return math.pi - jnp.mod(math.pi - angle, 2 * math.pi)


def apply(pose: chex.Array, command: chex.Array) -> chex.Array:
  """Returns the pose [..., 4] where `command` [..., 5] leads. Its yaw is wrapped."""
  pose, command = jnp.asarray(pose), jnp.asarray(command)
  position = pose[..., :3] + command[..., :3]
  yaw = wrap_angle(pose[..., 3] + yaw_change(command))
  return jnp.concatenate([position, yaw[..., None]], axis=-1)


def yaw_change(command: chex.Array) -> chex.Array:
  """Returns the change in yaw [...] of commands [..., 5], radians in [-pi, pi]."""
  return jnp.arctan2(command[..., 3], command[..., 4])


def from_search(motion: chex.Array, dz: chex.Array) -> chex.Array:
  """Returns commands [..., 5] for points of the space that the servo searches.

  Args:
    motion: [..., 3] (dx, dy, dyaw), metres and radians.
    dz: [...] change in height, metres.
  """
  dx, dy, dyaw = motion[..., 0], motion[..., 1], motion[..., 2]
  dz = jnp.broadcast_to(dz, dx.shape)
  return jnp.stack([dx, dy, dz, jnp.sin(dyaw), jnp.cos(dyaw)], axis=-1)


def project_to_table(
  command: chex.Array, pose: chex.Array, table_height: chex.Array
) -> chex.Array:
  """Returns `command` with the dz that makes it end at the table (Appendix A).

  Args:
    command: [..., 5] command.
    pose: [..., 4] pose from which it starts.
    table_height: [...] z of fingertips that touch the table, metres.
  """
  command = jnp.asarray(command)
  dz = jnp.broadcast_to(table_height - pose[..., 2], command.shape[:-1])
  return command.at[..., 2].set(dz)
