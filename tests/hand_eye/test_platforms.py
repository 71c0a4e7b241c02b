"""A platform that JAX cannot run on is named in one line."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


PROGRAM = """
import os
import jax
from hand_eye import checkpoint, platforms
from hand_eye.deploy import runtime
for wanted in os.environ["WANTED"].split():
  os.environ["JAX_PLATFORMS"] = wanted
  jax.config.update("jax_platforms", wanted)  # as a start with the variable does
  for load in (runtime.load_policy, checkpoint.load_policy):
    try: load(".")
    except platforms.PlatformError as error: print(error)
"""


def test_the_variable_is_named(monkeypatch):
  wanted = ["nonsense"]
  if not any(Path("/dev").glob("nvidia[0-9]*")):
    wanted += ["cuda", "gpu"]
  monkeypatch.setenv("JAX_PLATFORMS", wanted[0])
  monkeypatch.setenv("WANTED", " ".join(wanted))
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True
  )
  lines = done.stdout.splitlines()
  assert len(lines) == 2 * len(wanted), done.stderr
  for number, line in enumerate(lines):
    name = f"JAX_PLATFORMS={wanted[number // 2]}"
    assert line.startswith(f"{name}: JAX cannot run on that here (")
    assert line.endswith("unset it, or set JAX_PLATFORMS=cpu.")
