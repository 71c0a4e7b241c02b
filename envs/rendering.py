"""Headless rendering: one GL context a process, one image at a time.

EGL is tried first, then OSMesa, in a subprocess with a time limit, because a broken
driver can hang instead of failing.
"""

import atexit
import functools
import importlib
import os
import subprocess
import sys

import numpy as np

BACKENDS = ("egl", "osmesa")
# A context that hangs (a known trap of EGL on shared GPUs) must not stop everything.
_PROBE_SECONDS = 60.0
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
  '<mujoco><worldbody><light pos="0 0 2"/><geom size=".1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
  renderer.update_scene(data)
  assert renderer.render().max() > 0, 'the image is black'
"""


class RenderingUnavailableError(RuntimeError):
  """No GL backend works on this machine."""


class ForkedRendererError(RuntimeError):
  """A process was forked from one that had drawn; to draw in it would hang."""


def can_render(backend: str, timeout: float = _PROBE_SECONDS) -> tuple[bool, str]:
  """Draws an image in a child process. Returns (worked, last line of its error)."""
  environment = dict(os.environ, MUJOCO_GL=backend)
  # PyOpenGL must follow MuJoCo's choice, whatever the caller's environment says.
  environment.pop("PYOPENGL_PLATFORM", None)
  try:
    done = subprocess.run(
      [sys.executable, "-c", _PROBE],
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
  """The first backend that draws, and what was wrong with those before it.

  Only the value of MUJOCO_GL is tried where that is set.
  """
  chosen = os.environ.get("MUJOCO_GL")
  reasons: list[str] = []
  for backend in (chosen,) if chosen else BACKENDS:
    worked, reason = can_render(backend)
    if worked:
      return backend, reasons
    reasons.append(f"{backend}: {reason or 'failed'}")
  return None, reasons


def choose_backend() -> str:
  """Sets MUJOCO_GL for this process and its children, once, and returns it.

  A value that the caller set is kept.

  Raises:
    RenderingUnavailableError: neither EGL nor OSMesa can draw.
  """
  # Mesa's software renderer would start a thread a core in each of a core's workers.
  os.environ.setdefault("LP_NUM_THREADS", "1")
  chosen = os.environ.get("MUJOCO_GL")
  if chosen:
    return chosen
  backend, reasons = working_backend()
  if backend is None:
    raise RenderingUnavailableError(
      f"no GL backend can draw ({'; '.join(reasons)}). On Debian or Ubuntu:"
      " apt-get install libegl1 libgl1 libosmesa6"
    )
  os.environ["MUJOCO_GL"] = backend
  return backend


# The process that made the GL context. A software renderer's threads do not survive a
# fork, but its memory does: whatever calls GL in a forked child, even to free the
# context, waits for them forever.
_owner: int | None = None


def check_not_forked() -> None:
  """Must come before every call to GL.

  Raises:
    ForkedRendererError: this process was forked after its parent had drawn.
  """
  if _owner not in (None, os.getpid()):
    raise ForkedRendererError(
      "this process was forked from one that had already drawn images, and GL does not"
      " survive a fork; start it with the multiprocessing context 'spawn':"
      " vector_kwargs={'context': 'spawn'} for gymnasium.make_vec,"
      " start_method='spawn' for SubprocVecEnv of Stable-Baselines3"
    )


def _abandon(context) -> None:
  """In a forked child: leaves the parent's context alone, when the child ends too."""
  context._context = None  # what its `free` and its destructor look at
  if egl := sys.modules.get("OpenGL.EGL"):
    atexit.unregister(egl.eglTerminate)  # which mujoco.egl registered


@functools.cache
def _gl_context():
  global _owner
  backend = choose_backend()
  if backend not in (*BACKENDS, "glfw"):
    raise RenderingUnavailableError(
      f"MUJOCO_GL is {backend!r}, expected egl, osmesa or glfw; unset it to have one"
      " chosen"
    )
  # Not mujoco.GLContext: that was settled when something first imported mujoco.
  try:
    module = importlib.import_module(f"mujoco.{backend}")
    # Images are drawn into buffers that belong to a model; the context's own size is
    # never seen.
    context = module.GLContext(16, 16)
    context.make_current()
    if backend == "glfw" and not importlib.import_module("glfw").get_current_context():
      raise RuntimeError("there is no display")
  except Exception as error:  # whatever the bindings make of a missing library
    raise RenderingUnavailableError(
      f"MUJOCO_GL={backend} cannot draw here ({type(error).__name__}: {error}); unset"
      " it to have one chosen, and see python -m experiments.setup_gl"
    ) from error
  _owner = os.getpid()
  atexit.register(context.free)  # later, the interpreter has taken EGL apart
  if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=functools.partial(_abandon, context))
  return context


class Renderer:
  """Draws one model's cameras as square images: RGB, depth, what is where.

  The GL context is shared by all renderers of the process; `close` frees what
  belongs to the model. Not for use from several threads.
  """

  def __init__(self, model):
    import mujoco

    self._mujoco = mujoco
    self._model = model
    check_not_forked()
    _gl_context().make_current()
    self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
    self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nflex + 100)
    self._option = mujoco.MjvOption()
    self._camera = mujoco.MjvCamera()
    self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

  def render(self, data, camera: str, size: int) -> np.ndarray:
    """uint8[size, size, 3], top row first, as seen by the named camera.

    Raises:
      ValueError: `size` is larger than the model's offscreen buffer.
    """
    rect = self._draw(data, camera, size)
    image = np.empty((size, size, 3), np.uint8)
    self._mujoco.mjr_readPixels(image, None, rect, self._context)
    return np.ascontiguousarray(image[::-1])

  def render_depth(self, data, camera: str, size: int) -> np.ndarray:
    """float32[size, size], top row first: metres along the optical axis (z-depth).

    Exact, of what is in front: translucent things count as if they were opaque.
    Where nothing is, the distance of the far clipping plane.

    Raises:
      ValueError: as `render`.
    """
    return self._draw_ids(data, camera, size)[0]

  def render_segmentation(self, data, camera: str, size: int) -> np.ndarray:
    """int32[size, size, 2], top row first: (type, id) of what is in front.

    Types are those of `mujoco.mjtObj` (mjOBJ_GEOM, mjOBJ_FLEX); -1, -1 is nothing.

    Raises:
      ValueError: as `render`.
    """
    return self._draw_ids(data, camera, size)[1]

  def _draw_ids(self, data, camera: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    mujoco = self._mujoco
    flags = [
      int(flag)
      for flag in (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR)
    ]
    self._scene.flags[flags] = 1
    try:
      rect = self._draw(data, camera, size)
    finally:
      self._scene.flags[flags] = 0
    colour = np.empty((size, size, 3), np.uint8)
    buffer = np.empty((size, size), np.float32)
    # Far things near zero, where floating-point numbers are finest.
    self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
    mujoco.mjr_readPixels(colour, buffer, rect, self._context)
    scale = self._model.stat.extent
    near = self._model.vis.map.znear * scale
    far = self._model.vis.map.zfar * scale
    # The buffer holds near (far - z) / (z (far - near)): 1 at `near`, 0 at `far`.
    depth = near * far / (buffer.astype(np.float64) * (far - near) + near)
    drawn = self._scene.geoms[: self._scene.ngeom]
    names = np.full((self._scene.ngeom + 1, 2), -1, np.int32)
    for geom in drawn:
      if geom.segid >= 0:
        names[geom.segid + 1] = geom.objtype, geom.objid
    number = colour.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
    return depth[::-1].astype(np.float32), names[number[::-1]]

  def _draw(self, data, camera: str, size: int):
    """Draws into the offscreen buffer; returns the part of it that was drawn on."""
    check_not_forked()
    mujoco = self._mujoco
    largest = self._model.vis.global_.offwidth
    if size > largest:
      raise ValueError(f"image of {size} pixels: the scene was built for {largest}")
    self._camera.fixedcamid = self._model.camera(camera).id
    mujoco.mjv_updateScene(
      self._model,
      data,
      self._option,
      None,
      self._camera,
      mujoco.mjtCatBit.mjCAT_ALL,
      self._scene,
    )
    rect = mujoco.MjrRect(0, 0, size, size)
    # Another renderer may have been made since, and with it another buffer.
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
    mujoco.mjr_render(rect, self._scene, self._context)
    return rect

  def close(self) -> None:
    """Frees the model's textures and lists; safe to call twice, and after a fork."""
    if self._context is not None and _owner == os.getpid():
      self._context.free()
    self._context = None
