"""The check of the renderer says what works, and what to do where nothing does."""

import subprocess
import sys
from pathlib import Path

import pytest

from envs import rendering
from experiments import setup_gl

ROOT = Path(__file__).parents[2]


def test_the_backend_that_is_set_is_the_only_one_tried(monkeypatch):
  tried = []
  monkeypatch.setattr(
    rendering, "can_render", lambda backend: (bool(tried.append(backend)), "broken")
  )
  monkeypatch.setenv("MUJOCO_GL", "osmesa")
  assert rendering.working_backend() == (None, ["osmesa: broken"])
  monkeypatch.delenv("MUJOCO_GL")
  assert rendering.working_backend()[0] is None
  assert tried == ["osmesa", "egl", "osmesa"]


def test_a_backend_that_does_not_exist_is_refused():
  worked, reason = rendering.can_render("paper")
  assert not worked
  assert "paper" in reason


def test_a_renderer_that_hangs_is_given_up(monkeypatch):
  def hang(*_, **__):
    raise subprocess.TimeoutExpired("python", 3)

  monkeypatch.setattr(rendering.subprocess, "run", hang)
  assert rendering.can_render("egl", timeout=3) == (False, "no image after 3 s")


def test_without_permission_the_one_line_is_printed(monkeypatch, capsys):
  monkeypatch.delenv("MUJOCO_GL", raising=False)
  monkeypatch.setattr(rendering, "can_render", lambda backend: (False, "no library"))
  monkeypatch.setattr(setup_gl, "_privilege", lambda: None)
  assert setup_gl.main() == 1
  lines = capsys.readouterr().err.strip().splitlines()
  assert len(lines) == 1
  assert "egl: no library" in lines[0]
  assert "sudo apt-get install -y libegl1 libgl1 libosmesa6" in lines[0]


def test_what_works_after_installing_is_used(monkeypatch, capsys):
  monkeypatch.delenv("MUJOCO_GL", raising=False)
  installed = []
  monkeypatch.setattr(
    rendering, "can_render", lambda backend: (bool(installed) and backend == "egl", "")
  )
  monkeypatch.setattr(setup_gl, "install", lambda: installed.append(1) or True)
  assert setup_gl.main() == 0
  assert "MUJOCO_GL=egl" in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["osmesa", "glfw", "wgl"])
def test_a_backend_that_cannot_draw_is_named(backend, monkeypatch):
  """Importing what draws nothing works; drawing says which variable is wrong."""
  monkeypatch.setenv("MUJOCO_GL", backend)
  for name in ("DISPLAY", "WAYLAND_DISPLAY"):
    monkeypatch.delenv(name, raising=False)
  program = (
    "import envs.units\n"
    "from envs import rendering\n"
    "try: rendering.Renderer(None)\n"
    "except rendering.RenderingUnavailableError as error: print(error)\n"
    "except TypeError: print('can draw')\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
  )
  line = done.stdout.strip()
  if backend == "osmesa" and line == "can draw":
    pytest.skip("OSMesa is installed")
  expected = f"MUJOCO_GL={backend} cannot draw here ("
  if backend == "wgl":
    expected = "MUJOCO_GL is 'wgl', expected egl, osmesa or glfw"
  assert line.startswith(expected), done.stderr
  assert "unset it" in line
