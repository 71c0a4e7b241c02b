"""A robot of your own: what `--robot=module:factory` needs, with a robot to try it on.

  python -m examples.own_robot serve &     # the robot: a process of its own
  python -m experiments.collect --robot=examples.own_robot:connect \
    --workdir=runs/own/data --config.collect.num_attempts=16
  python -m experiments.servo --robot=examples.own_robot:connect
  python -m experiments.evaluate --robot=examples.own_robot:connect \
    --policies=random,exported --workdir=runs/own/evaluate

`OwnRobot` is what you write for your robot: one method for each thing that it can do.
This one talks to another process over a socket, as to a robot's driver; there, a
simulated cell stands in for the hardware.
"""

import dataclasses
import os
import sys
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import numpy as np

SOCKET = os.environ.get("OWN_ROBOT_SOCKET", "/tmp/own_robot.sock")
FRAME_SIZE = 72  # pixels: what the shipped policy sees


@dataclasses.dataclass
class OwnRobot:
  """Implements `envs.robots.Robot`; units and frames are said there."""

  driver: Connection
  name: str
  table_height: float
  workspace: tuple[np.ndarray, np.ndarray]

  def reset(self) -> None:
    self._ask("reset")

  def image(self) -> np.ndarray:
    return self._ask("image")

  def pose(self) -> np.ndarray:
    return self._ask("pose")

  def approach(self, pose: np.ndarray) -> None:
    self._ask("approach", pose)

  def move(self, pose: np.ndarray) -> None:
    self._ask("move", pose)

  def close(self) -> None:
    self._ask("close")

  def lift(self) -> None:
    self._ask("lift")

  def reading(self) -> float:
    return self._ask("reading")

  def open(self, over: np.ndarray) -> None:
    self._ask("open", over)

  def shut_down(self) -> None:
    """Not needed by the protocol: called at the end, if it is there."""
    self.driver.close()

  def _ask(self, what: str, *arguments: Any) -> Any:
    self.driver.send((what, arguments))
    if not self.driver.poll(60.0):
      raise TimeoutError(f"the robot's driver has not answered {what} for 60 s")
    failed, answer = self.driver.recv()
    if failed:
      raise RuntimeError(f"the robot could not {what}: {answer}")
    return answer


def connect() -> OwnRobot:
  """What --robot names: returns the robot, ready."""
  driver = Client(SOCKET, "AF_UNIX")
  return OwnRobot(driver, *driver.recv())


def serve(seed: int = 0, most_clients: int | None = None) -> None:
  """Stands in for the hardware: a simulated cell, one client at a time."""
  from envs import objects, rendering, units
  from envs.grasp_env import GraspEnv
  from envs.robots import SimulatedRobot

  rendering.choose_backend()
  rng = np.random.default_rng(seed)
  things = objects.sample_objects(rng, 6, "held_out")
  env = GraspEnv(units.sample_unit(1), things, FRAME_SIZE)
  env.fill(rng)
  robot = SimulatedRobot(env, rng)
  with Listener(SOCKET, "AF_UNIX") as listener:
    print(f"robot {robot.name} at {SOCKET}", flush=True)
    served = 0
    while most_clients is None or served < most_clients:
      with listener.accept() as client:
        client.send((robot.name, robot.table_height, robot.workspace))
        _answer(robot, client)
      served += 1
  env.close()


def _answer(robot: Any, client: Connection) -> None:
  while True:
    try:
      what, arguments = client.recv()
    except EOFError:
      return  # the client has gone
    try:
      client.send((False, getattr(robot, what)(*arguments)))
    except Exception as error:
      client.send((True, str(error)))


if __name__ == "__main__":
  if sys.argv[1:] != ["serve"]:
    sys.exit("usage: python -m examples.own_robot serve")
  serve()
