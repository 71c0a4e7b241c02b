"""A platform that JAX cannot run on is named in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("wanted", ["cuda", "gpu", "nonsense"])
def test_the_variable_is_named(wanted, monkeypatch):
  if wanted != "nonsense" and any(Path("/dev").glob("nvidia[0-9]*")):
    pytest.skip("there is a GPU")
  monkeypatch.setenv("JAX_PLATFORMS", wanted)
  program = (
    "from hand_eye import checkpoint, platforms\n"
    "from hand_eye.deploy import runtime\n"
    "for load in (runtime.load_policy, checkpoint.load_policy):\n"
    "  try: load('.')\n"
    "  except platforms.PlatformError as error: print(error)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
  )
  lines = done.stdout.splitlines()
  assert len(lines) == 2, done.stderr
  for line in lines:
    assert line.startswith(f"JAX_PLATFORMS={wanted}: JAX cannot run on that here (")
    assert line.endswith("unset it, or set JAX_PLATFORMS=cpu.")
