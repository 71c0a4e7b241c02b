"""Makes sure that MuJoCo can draw without a screen: `python -m experiments.setup_gl`.

Renders one small image in a child process with EGL, then OSMesa. If neither works,
installs Mesa's software renderers where that is allowed, else prints the one line to
run. Uses the standard library only, so that it runs before anything else does.
"""

import os
import shutil
import subprocess
import sys

PACKAGES = ("libegl1", "libgl1", "libosmesa6")
# A context that hangs (a known trap of EGL on shared GPUs) must not stop the set-up.
TIMEOUT_SECONDS = 60.0

_RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string(
  '<mujoco><worldbody><light pos="0 0 2"/><geom size=".1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
  renderer.update_scene(data)
  assert renderer.render().max() > 0, 'the image is black'
"""


def backends() -> tuple[str, ...]:
  """The values of MUJOCO_GL to try: the one that is set, else this system's."""
  chosen = os.environ.get("MUJOCO_GL")
  if chosen:
    return (chosen,)
  return ("cgl",) if sys.platform == "darwin" else ("egl", "osmesa")


def can_render(backend: str, timeout: float = TIMEOUT_SECONDS) -> tuple[bool, str]:
  """Draws an image in a child process. Returns (worked, last line of its error)."""
  environment = dict(os.environ, MUJOCO_GL=backend)
  # PyOpenGL must follow MuJoCo's choice, whatever the caller's environment says.
  environment.pop("PYOPENGL_PLATFORM", None)
  try:
    done = subprocess.run(
      [sys.executable, "-c", _RENDER],
      env=environment,
      capture_output=True,
      text=True,
      timeout=timeout,
    )
  except subprocess.TimeoutExpired:
    return False, f"no image after {timeout:.0f} s"
  lines = [line for line in done.stderr.splitlines() if line.strip()]
  return done.returncode == 0, lines[-1].strip() if lines else ""


def working_backend() -> tuple[str | None, list[str]]:
  """The first backend that draws, and what was wrong with those before it."""
  reasons: list[str] = []
  for backend in backends():
    worked, reason = can_render(backend)
    if worked:
      return backend, reasons
    reasons.append(f"{backend}: {reason or 'failed'}")
  return None, reasons


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


def main() -> int:
  backend, reasons = working_backend()
  mesa = "egl" in backends() or "osmesa" in backends()
  if backend is None and mesa and install():
    backend, reasons = working_backend()
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
  sys.exit(main())
