"""The programs that join the three packages; see WORKSPACE.md."""

import importlib.util
import os
import sys

if importlib.util.find_spec("absl") is None:
  sys.exit(
    "error: the programs need more than a control process does:"
    " pip install 'hand_eye[train]', or '.[train]' in a checkout; where there is no"
    " network, docs/timed.md says what to bring"
  )

# MuJoCo answers a backend that it does not know with a traceback, when it is imported.
_BACKENDS = ("egl", "osmesa", "glfw")
if os.environ.get("MUJOCO_GL", "egl") not in _BACKENDS:
  sys.exit(
    f"error: MUJOCO_GL is {os.environ['MUJOCO_GL']!r}, expected one of"
    f" {', '.join(_BACKENDS)}; unset it to have one chosen"
  )
