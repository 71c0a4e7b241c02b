"""Makes sure that MuJoCo can draw without a screen: `python -m experiments.setup_gl`.

Renders one small image in a child process with EGL, then OSMesa. If neither works,
installs Mesa's software renderers if allowed, else prints the command that does.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from envs import rendering

PACKAGES = ("libegl1", "libgl1", "libosmesa6")


def _privilege() -> list[str] | None:
  """How to become root without being asked: [], ["sudo", "-n"], or None."""
  if not shutil.which("apt-get"):
    return None
  if os.geteuid() == 0:
    return []
  if shutil.which("sudo"):
    probe = subprocess.run(["sudo", "-n", "true"], capture_output=True)
    if probe.returncode == 0:
      return ["sudo", "-n"]
  return None


def install() -> bool:
  """Installs Mesa's software renderers with apt-get, if this user may."""
  privilege = _privilege()
  if privilege is None:
    return False
  print("Installing " + " ".join(PACKAGES) + " with apt-get", flush=True)
  apt = [*privilege, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
  subprocess.run([*apt, "update", "-qq"], stdout=subprocess.DEVNULL)
  command = [*apt, "install", "-y", "-qq", "--no-install-recommends"]
  # Newer distributions no longer carry OSMesa; EGL alone is enough.
  for packages in (PACKAGES, PACKAGES[:2]):
    if subprocess.run([*command, *packages], stdout=subprocess.DEVNULL).returncode == 0:
      return True
  return False


def main(arguments: Sequence[str] = ()) -> int:
  """Checks, and installs if need be. Returns the status that the program ends with."""
  if arguments:
    print(__doc__)
    return 0 if "--help" in arguments else 2
  backend, reasons = rendering.working_backend()
  mesa = os.environ.get("MUJOCO_GL") in (None, "", *rendering.BACKENDS)
  if backend is None and mesa and install():
    backend, reasons = rendering.working_backend()
  if backend is not None:
    print(f"Rendering works with MUJOCO_GL={backend}")
    return 0
  advice = "sudo apt-get install -y " + " ".join(PACKAGES)
  if os.environ.get("MUJOCO_GL"):
    advice = "unset MUJOCO_GL" + (f" or {advice}" if mesa else "")
  print(
    "error: MuJoCo cannot draw here (" + "; ".join(reasons) + f"). Run: {advice}",
    file=sys.stderr,
  )
  return 1


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
