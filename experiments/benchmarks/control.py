r"""How long one decision takes, from images to command, against a floor and peers.

  python -m experiments.benchmarks.control --workdir=runs/benchmarks

One image pair, three times 64 commands and the null command, with random weights. In
one run, in turns: ours (`hand_eye.inference`), step by step; the plain network with the
embedding tiled, and once with the images tiled, 64 times; ours with an engine
(`hand_eye.deploy.engine`), and PyTorch (embedding tiled, compiled, channels last), both
in float32 and bfloat16. The floor: the necessary multiply-adds at the speed of matrix
products in the same run. Libraries that are not installed are left out and named: `pip
install openvino torch`. These two run on the CPU. --nopeers measures only what is
exported. --robots=14 adds that fleet, deciding in one call, for accelerators. Writes
control.json.
"""

import contextlib
import functools
import importlib.util
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli
from experiments.benchmarks import control_torch, harness
from hand_eye import decision, inference, network, servo
from hand_eye.constraints import Constraints
from hand_eye.deploy import engine, export, program

Decision = Callable[[], Any]
SEARCH = servo.ServoConfig()
MATRIX = 2048  # side of the products that the peak is measured with
POSE = np.array([0.55, 0.0, 0.12, 0.3], np.float32)
LOW = np.array([0.4, -0.2, 0.0, -np.pi], np.float32)
HIGH = np.array([0.7, 0.2, 0.3, np.pi], np.float32)


def multiply_adds(config: network.NetworkConfig) -> tuple[int, int]:
  """Needed for an image pair and for a command, each convolution done directly.

  The first command convolution counts with the image: it is needed once.
  """
  c, size, depth = config, config.crop_size, config.channels
  size = -(-size // c.stem_stride)
  image = size**2 * c.stem_kernel**2 * network.IMAGE_CHANNELS * depth
  size = -(-size // c.stem_pool)
  image += c.image_convs * (size * c.image_kernel * depth) ** 2
  size = -(-size // c.image_pool)
  once = (size * c.command_kernel * depth) ** 2
  image += once * min(c.command_convs, 1)
  command = once * max(c.command_convs - 1, 0)
  size = -(-size // c.command_pool)
  for _ in range(c.final_convs):
    size -= c.final_kernel - 1
    command += (size * c.final_kernel * depth) ** 2
  units = [size**2 * depth, *c.dense_units, 1]
  command += sum(a * b for a, b in zip(units[:-1], units[1:], strict=True))
  return image, command


def random_variables(config: network.NetworkConfig) -> Any:
  """Weights with which activations keep their scale, and statistics, of no meaning."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(network.build(config).init, jax.random.key(0))

  def draw(path, x):
    if path[-1].key == "kernel":
      deviation = np.sqrt(2 / np.prod(x.shape[:-1]))
      return rng.normal(size=x.shape, scale=deviation).astype(np.float32)
    return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def tiled_images(config: network.NetworkConfig) -> network.Predictor:
  """The plain network as it would be called without halves."""
  plain = network.build(config)

  def score(params, batch_stats, images, candidates):
    images = jnp.broadcast_to(images, (len(candidates), *images.shape[1:]))
    # Else the compiler sees that they are all the same.
    images = jax.lax.optimization_barrier(images)
    return plain.apply(params, batch_stats, images, candidates, train=False)[0]

  return plain._replace(encode=lambda params, batch_stats, images: images, score=score)


def inputs_of(frames: np.ndarray, seed: int) -> decision.Inputs:
  """A decision on two frames [2, F, F, 3]."""
  return decision.Inputs(
    pregrasp_image=frames[0],
    image=frames[1],
    pose=POSE,
    table_height=np.float32(0),
    low=LOW,
    high=HIGH,
    is_last=np.asarray(False),
    key=np.array([0, seed], np.uint32),
    **Constraints().arrays(),
  )


def compiled(
  predictor: network.Predictor, weights: Any, frames: np.ndarray, robots: int = 1
) -> Decision:
  """One decision of the servo as one compiled call; of several robots, one each."""
  decide: Any = servo.Servo(predictor, SEARCH).decide
  inputs = inputs_of(frames, 0)
  if robots > 1:
    decide = jax.vmap(decide, in_axes=(None, 0))
    # Frames of their own, or the compiler sees that they are all the same.
    each = [inputs_of(np.roll(frames, i, axis=1), i) for i in range(robots)]
    inputs = jax.tree.map(lambda *arrays: np.stack(arrays), *each)
  params, batch_stats = jax.device_put(weights)
  weights = {"params": params, "batch_stats": batch_stats}
  function = jax.jit(decide).lower(weights, inputs).compile()
  count = itertools.count()

  def run() -> np.ndarray:
    key = inputs.key + np.array([next(count), 0], np.uint32)
    return np.asarray(function(weights, inputs._replace(key=key)).command)

  return run


def ours(
  config: network.NetworkConfig,
  variables: Any,
  frames: np.ndarray,
  robots: int,
  peers: bool = True,
) -> dict[str, Decision]:
  """The fast path; with `peers` also the plain network, and each step from it."""
  prepare = jax.jit(functools.partial(inference.prepare, config=config))
  prepared = prepare(*variables)
  folded: Any = (prepared, {})
  fast = inference.build(config)
  made = {}
  if peers:
    made["plain"] = compiled(network.build(config), variables, frames)
    made["ours"] = compiled(fast, variables, frames)
  made["ours, prepared"] = compiled(fast, folded, frames)
  if robots > 1:
    made[f"ours, {robots} robots"] = compiled(fast, folded, frames, robots)
  for name in engine.ENGINES if peers else ():
    with contextlib.suppress(engine.EngineError):
      made[name] = with_engine(name, prepared, config, frames)
  return made


def with_engine(
  name: str, prepared: Any, config: network.NetworkConfig, frames: np.ndarray
) -> Decision:
  """One decision as an exported policy makes it with an engine of `engine.ENGINES`."""
  made = program.Program(
    export.array_functions(servo.Servo(inference.build(config), SEARCH)),
    {"params": prepared, "batch_stats": {}},
    inputs_of(frames, 0),
    SEARCH.num_iterations,
    time.perf_counter,
    engine.OpenVino(
      jax.tree.map(np.asarray, prepared), config, name, (1, SEARCH.num_samples)
    ),
  )
  count = itertools.count()
  return lambda: np.asarray(made.whole(inputs_of(frames, next(count)))["command"])


def milliseconds(function: Decision) -> float:
  start = time.perf_counter()
  function()
  return 1e3 * (time.perf_counter() - start)


def measure(
  name: str, rounds: int, tile_images: bool, robots: int, peers: bool = True
) -> dict[str, Any]:
  """Medians in milliseconds for one preset, and what they are compared with."""
  config = network.preset(name)
  variables = random_variables(config)
  shape = (2, config.frame_size, config.frame_size, 3)
  frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  matrix = jnp.ones((MATRIX, MATRIX))
  product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
  decisions = ours(config, variables, frames, robots, peers)
  if peers:
    decisions |= control_torch.decisions(config, variables, frames, SEARCH)
  products: dict[str, Decision] = {
    "float32": lambda: product(matrix, matrix).block_until_ready(),
    **(control_torch.products(MATRIX) if peers else {}),
  }
  decisions |= {_product(dtype): run for dtype, run in products.items()}
  for decide in decisions.values():  # warms caches up
    decide()
  timed = {
    each: functools.partial(milliseconds, decide) for each, decide in decisions.items()
  }
  times = harness.in_turns(timed, rounds, name)
  medians = {each: float(np.median(values)) for each, values in times.items()}
  best = {each: float(np.min(values)) for each, values in times.items()}
  if tile_images:
    decide = compiled(tiled_images(config), variables, frames)
    medians["plain, images tiled"] = best["plain, images tiled"] = milliseconds(decide)
  image, command = multiply_adds(config)
  count = SEARCH.num_samples * SEARCH.num_iterations + 1
  needed = image + count * command
  # Multiply-adds a millisecond.
  peaks = {dtype: MATRIX**3 / best[_product(dtype)] for dtype in products}
  return {
    "preset": name,
    "rounds": rounds,
    "median_ms": medians,
    "best_ms": best,
    "multiply_adds": {"image": image, "command": command, "decision": needed},
    "peak_gflops": {dtype: 2e-6 * peak for dtype, peak in peaks.items()},
    "floor_ms": {dtype: needed / peak for dtype, peak in peaks.items()},
    "decisions_per_second": 1e3 / medians["ours, prepared"],
  }


def _product(dtype: str) -> str:
  return f"matrix product, {dtype}"


def benchmark(
  workdir: str | Path,
  *,
  presets: Sequence[str],
  rounds: int,
  tile_images: bool,
  robots: int = 1,
  peers: bool = True,
) -> dict[str, Any]:
  """Runs the whole benchmark; returns and writes what control.json holds."""
  workdir = cli.prepare_workdir(workdir)
  result = {
    "device": jax.devices()[0].device_kind,
    "presets": [measure(name, rounds, tile_images, robots, peers) for name in presets],
    "left_out": [
      package
      for package, there in (
        ("openvino", importlib.util.find_spec("openvino")),
        ("torch", control_torch.is_installed()),
      )
      if not there
    ],
  }
  return harness.write(workdir, "control", result)


def describe(result: dict[str, Any]) -> str:
  """The tables for the terminal."""
  lines = []
  for each in result["presets"]:
    lines.append(
      f"{each['preset']} on {result['device']}, one decision, {each['rounds']} rounds"
    )
    rows = [
      (name, f"{value:.1f}", f"{each['best_ms'][name]:.1f}", f"{1e3 / value:.1f}")
      for name, value in each["median_ms"].items()
      if name not in map(_product, each["floor_ms"])
    ] + [
      (f"floor, {d}, at {each['peak_gflops'][d]:.0f} GFLOP/s", f"{floor:.1f}", "", "")
      for d, floor in each["floor_ms"].items()
    ]
    header = ("", "median ms", "best ms", "a second")
    lines.append(cli.table(header, rows, range(1, 4)))
    lines.append("")
  for package in result["left_out"]:
    lines.append(f"{package} was left out: it is not installed.")
  return "\n".join(lines).rstrip()


def define_flags() -> None:
  flags.DEFINE_string("workdir", "", "Folder for control.json.")
  flags.DEFINE_list("presets", ["levine2016", "small"], "Networks to measure.")
  flags.DEFINE_integer("rounds", 15, "Decisions of each kind.", lower_bound=1)
  flags.DEFINE_bool(
    "tile_images", True, "Also one decision with the images tiled: half a minute, 4 GB."
  )
  flags.DEFINE_integer(
    "robots", 1, "More: also so many at once, as one call.", lower_bound=1
  )
  flags.DEFINE_bool("peers", True, "Also what it is compared with.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  result = benchmark(
    args.workdir,
    presets=args.presets,
    rounds=args.rounds,
    tile_images=args.tile_images,
    robots=args.robots,
    peers=args.peers,
  )
  print(describe(result))


if __name__ == "__main__":
  cli.run(main, define_flags)
