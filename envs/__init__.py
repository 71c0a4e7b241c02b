"""The robot cell in MuJoCo: units, objects, scene, control, attempts, baselines.

Knows no network and no file format: a policy is a callable that is handed in.
"""

import importlib
import os


def _import_mujoco() -> None:
  """Imports MuJoCo although MUJOCO_GL may name what does not work here.

  MuJoCo would end in a traceback at once, even where nothing is drawn. `rendering`
  says what is wrong when something is.
  """
  try:
    importlib.import_module("mujoco")
  except Exception:
    chosen = os.environ.pop("MUJOCO_GL")
    try:
      importlib.import_module("mujoco")
    finally:
      os.environ["MUJOCO_GL"] = chosen


if os.environ.get("MUJOCO_GL"):
  _import_mujoco()
