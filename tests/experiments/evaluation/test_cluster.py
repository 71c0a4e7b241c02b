"""Errors of workers arrive as they were raised, on this machine and on a cluster."""

import importlib
import inspect
import pkgutil

import pytest

import data_pipeline
import envs
import experiments
import hand_eye
from envs import control, fleet
from experiments import cli
from experiments.evaluation import cluster


def own_errors():
  """All exception classes of this project whose modules can be imported here."""
  found = []
  for package in (hand_eye, envs, data_pipeline, experiments):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
      if "benchmarks" in module.name or "configs" in module.name:
        continue
      try:
        contents = vars(importlib.import_module(module.name))
      except ImportError:
        continue  # an optional library
      found += [
        one
        for one in contents.values()
        if inspect.isclass(one)
        and issubclass(one, Exception)
        and one.__module__ == module.name
      ]
  return sorted(set(found), key=lambda one: (one.__module__, one.__name__))


class KeywordError(ValueError):
  def __init__(self, *, where):
    super().__init__(f"nothing at {where}")
    self.where = where


class TwoPartError(ValueError):
  def __init__(self, first, second):
    super().__init__(f"{first} and {second}")


def made(kind):
  """An error of a class, with a message and an attribute of its own."""
  if kind is KeywordError:
    return KeywordError(where="here")
  if kind is TwoPartError:
    return TwoPartError("one", "two")
  if kind is OSError:
    return OSError(28, "No space left on device", "rows.jsonl")
  needed = 1
  if inspect.isfunction(kind.__init__):
    parameters = list(inspect.signature(kind).parameters.values())
    needed = sum(p.default is p.empty and p.kind <= 1 for p in parameters)
  error = kind("no such thing", *[1] * (needed - 1))
  error.count = 7
  return error


def fail(kind):
  raise made(kind)


KINDS = [*own_errors(), KeywordError, TwoPartError, OSError]


def assert_same(found, kind):
  expected = made(kind)
  assert type(found) is kind
  assert str(found) == str(expected)
  assert cli.message_for_user(found) == cli.message_for_user(expected)
  ours = {k: v for k, v in vars(found).items() if k != "__notes__"}
  assert ours.keys() == vars(expected).keys()
  assert getattr(found, "count", None) == getattr(expected, "count", None)
  assert "In a worker process" in found.__notes__[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_travels_with_type_message_and_attributes(kind):
  assert control.DivergedError in KINDS and cli.UserError in KINDS
  assert_same(fleet.answer(fail, kind).error(), kind)


def test_an_error_that_cannot_travel_is_named():
  class Local(Exception):
    pass

  def raise_local(_):
    raise Local("of a function")

  found = fleet.answer(raise_local, 0).error()
  assert type(found) is RuntimeError and str(found) == "Local: of a function"


@pytest.mark.slow
def test_on_ray_every_error_is_the_same_as_of_a_local_worker():
  ray = pytest.importorskip(
    "ray", reason="pip install -c constraints.txt -e .[cluster]"
  )
  runner = cluster.runner(cluster.LOCAL)
  try:
    for kind in KINDS:
      with pytest.raises(kind) as caught:
        list(runner(fail, [kind], num_workers=1))
      assert_same(caught.value, kind)
    assert list(runner(len, ["abc"])) == [(0, 3)]
  finally:
    ray.shutdown()
