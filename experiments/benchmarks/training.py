r"""How fast the network trains, against the machine's matrix products and PyTorch.

  python -m experiments.benchmarks.training --workdir=runs/benchmarks

Steps of training on a batch that is already on the device: forward, backward, clipped
AdamW, moving averages. In one run and in turns: ours in float32, in bfloat16 and with
the stem as a space-to-depth convolution; on a CPU also with a device for each core; the
same network (its logits are compared) in PyTorch, compiled and channels-last, in
float32 and bfloat16; and bare matrix products in both number formats, which give the
peak. Then each kind of convolution alone, forward and backward: where the time goes.
`cores` is the CPU time that this process used in a second: on a CPU, how many cores
work. The peer needs `pip install torch`; without it, it is left out, with a message.
Writes training.json.

How long a run waits for data is in its metrics.jsonl, as wait_share.
"""

import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli
from experiments.benchmarks import harness, torch_peer
from experiments.fitting import devices as devices_lib
from hand_eye import architectures, network, optimizers, training

TARGET = 1.2  # times PyTorch
DTYPES = ("float32", "bfloat16")
# Samples a step. A GPU wants more of them at once than two cores do.
BATCH_SIZES = {"cpu": {"small": 64, "levine2016": 8}, "other": {"levine2016": 256}}
_DEFAULT_BATCH = 256
_PRODUCT_SIZE = {"cpu": 2048, "other": 8192}
# Ours, by name: fields of the network.
VARIANTS = {
  "hand_eye float32": {},
  "hand_eye float32, space to depth": {"stem_form": "space_to_depth"},
  "hand_eye bfloat16": {"dtype": "bfloat16"},
  "hand_eye bfloat16, space to depth": {
    "dtype": "bfloat16",
    "stem_form": "space_to_depth",
  },
}


def convolutions(config: network.NetworkConfig) -> list[dict[str, Any]]:
  """The kinds of convolution: name, count, side of the output, kernel, inputs."""
  c, size = config, -(-config.crop_size // config.stem_stride)
  found = [("stem", 1, size, c.stem_kernel, network.IMAGE_CHANNELS, c.stem_stride)]
  size = -(-size // c.stem_pool)
  found.append(("image", c.image_convs, size, c.image_kernel, c.channels, 1))
  size = -(-size // c.image_pool)
  found.append(("command", c.command_convs, size, c.command_kernel, c.channels, 1))
  size = -(-size // c.command_pool)
  for _ in range(c.final_convs):
    size -= c.final_kernel - 1
    found.append(("final", 1, size, c.final_kernel, c.channels, 1))
  names = ("name", "count", "side", "kernel", "inputs", "stride")
  return [dict(zip(names, each, strict=True)) for each in found if each[1]]


def step_flops(config: network.NetworkConfig) -> float:
  """Floating-point operations of a training step on one sample.

  Two for each multiply-add; forward, and as much again for the gradient of the inputs,
  of which the first layer has none, and of the weights. What is not a convolution or a
  dense layer is left out.
  """
  total = 0.0
  for conv in convolutions(config):
    products = conv["side"] ** 2 * conv["kernel"] ** 2 * conv["inputs"]
    passes = 2 if conv["name"] == "stem" else 3
    total += 2 * passes * conv["count"] * products * config.channels
  last = convolutions(config)[-1]["side"]
  widths = [last**2 * config.channels, *config.dense_units, 1]
  dense = sum(a * b for a, b in zip(widths, widths[1:], strict=False))
  return total + 6 * (dense + network.COMMAND_SIZE * config.channels)


def make_batch(config: network.NetworkConfig, count: int) -> training.Batch:
  """Noise of the right shapes."""
  rng = np.random.default_rng(0)
  shape = (count, config.crop_size, config.crop_size, 3)
  return training.Batch(
    pregrasp_image=rng.integers(0, 256, shape, dtype=np.uint8),
    image=rng.integers(0, 256, shape, dtype=np.uint8),
    command=rng.normal(0, 0.1, (count, network.COMMAND_SIZE)).astype(np.float32),
    success=(np.arange(count) % 4 == 0).astype(np.float32),
  )


def our_step(
  config: network.NetworkConfig, batch: training.Batch, devices: int = 1
) -> Callable[[], Any]:
  """A function that takes one step more, on the first devices."""
  mesh = training.make_mesh(jax.devices()[:devices])
  predictor = architectures.build(config)
  optimizer = optimizers.make_optimizer(optimizers.OptimizerConfig())
  step = training.make_train_step(predictor, optimizer, mesh=mesh)
  state = training.init_state(predictor, optimizer, jax.random.key(0), mesh=mesh)
  on_device = training.shard_batch(batch, mesh)

  def take() -> Any:
    nonlocal state
    state, metrics = step(state, on_device)
    return metrics.gradient_norm

  return take


def matrix_product(dtype: str, size: int) -> Callable[[], Any]:
  a = jnp.ones((size, size), dtype)
  product = jax.jit(lambda a: a @ a)
  return lambda: product(a)


def rate(
  take: Callable[[], Any], seconds: float, wait: Callable[[Any], Any]
) -> tuple[float, float]:
  """Calls a second, after one that compiles and one that warms up; and cores in use."""
  wait(take())
  start = time.perf_counter()
  wait(take())
  once = time.perf_counter() - start
  count = max(1, round(seconds / max(once, 1e-6)))
  start, used = time.perf_counter(), time.process_time()
  for _ in range(count):
    last = take()
  wait(last)
  passed = time.perf_counter() - start
  return count / passed, (time.process_time() - used) / passed


def layer_times(
  config: network.NetworkConfig, count: int, seconds: float
) -> list[dict[str, Any]]:
  """Each kind of convolution alone, forward and backward, on `count` samples."""
  rows = []
  for conv in convolutions(config):
    padding = "VALID" if conv["name"] == "final" else "SAME"
    side = conv["side"] * conv["stride"]
    side += conv["kernel"] - 1 if padding == "VALID" else 0
    x = jnp.ones((count, side, side, conv["inputs"]), config.dtype)
    kernel = jnp.ones(
      (conv["kernel"], conv["kernel"], conv["inputs"], config.channels), config.dtype
    )

    def loss(kernel, x, stride=conv["stride"], padding=padding):
      y = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
      )  # fmt: skip
      return jnp.sum(jnp.square(y.astype(jnp.float32)))

    wanted = 0 if conv["name"] == "stem" else (0, 1)
    gradient = jax.jit(jax.grad(loss, argnums=wanted))
    take = functools.partial(gradient, kernel, x)
    calls, cores = rate(take, seconds, jax.block_until_ready)
    passes = 2 if conv["name"] == "stem" else 3
    products = conv["side"] ** 2 * conv["kernel"] ** 2 * conv["inputs"]
    flops = 2 * passes * products * config.channels * count
    rows.append(
      {
        **conv,
        "ms_each": 1e3 / calls,
        "ms": 1e3 * conv["count"] / calls,
        "flop_per_second": flops * calls,
        "cores": cores,
      }
    )
  return rows


def measure_preset(
  config: network.NetworkConfig,
  count: int,
  seconds: float,
  rounds: int,
  dtypes: Sequence[str] = DTYPES,
  layers: bool = True,
) -> dict[str, Any]:
  """Samples a second of every variant of one network, and what they are shares of.

  Args:
    count: samples a step.
    seconds: of each measurement.
    rounds: measurements of each; medians count.
    dtypes: of DTYPES, those that are measured.
    layers: whether each kind of convolution is measured alone, too.
  """
  batch = make_batch(config, count)
  platform = "cpu" if jax.default_backend() == "cpu" else "other"
  size = _PRODUCT_SIZE[platform]
  takes: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {}
  for dtype in dtypes:
    takes[f"product {dtype}"] = (matrix_product(dtype, size), jax.block_until_ready)
  for name, fields in VARIANTS.items():
    if fields.get("dtype", "float32") in dtypes:
      step = our_step(network.preset(config.name, **fields), batch)
      takes[name] = (step, jax.block_until_ready)
  devices = math.gcd(len(jax.devices()), count)
  if platform == "cpu" and "float32" in dtypes and devices > 1:
    step = our_step(config, batch, devices)
    takes[f"hand_eye float32, {devices} devices"] = (step, jax.block_until_ready)
  peer = torch_peer.load()
  difference = None
  if peer:
    difference = peer.difference(config, batch)
    for dtype in dtypes:
      takes[f"torch {dtype}"] = (peer.step(config, batch, dtype), peer.wait)
      takes[f"product torch {dtype}"] = (peer.product(dtype, size), peer.wait)
  rates = harness.in_turns(
    {
      name: functools.partial(rate, take, seconds, wait)
      for name, (take, wait) in takes.items()
    },
    rounds,
    config.name,
  )
  medians, cores = (
    {name: float(np.median(values, axis=0)[i]) for name, values in rates.items()}
    for i in range(2)
  )

  def best(kind: str) -> float:
    values = [v for name, v in medians.items() if name.startswith(kind)]
    return max(values, default=0.0)

  peaks = {
    dtype: 2 * size**3 * max(
      v for name, v in medians.items()
      if name.startswith("product") and name.endswith(dtype)
    )
    for dtype in dtypes
  }  # fmt: skip
  flops = step_flops(config) * count
  rows = []
  for name, steps in medians.items():
    if not name.startswith("product"):
      dtype = "bfloat16" if "bfloat16" in name else "float32"
      rows.append(
        {
          "name": name,
          "samples_per_second": steps * count,
          "flop_per_second": steps * flops,
          "share_of_peak": steps * flops / peaks[dtype],
          "cores": cores[name],
        }
      )
  return {
    "preset": config.name,
    "batch_size": count,
    "flop_per_sample": flops / count,
    "peak_flop_per_second": peaks,
    "rows": rows,
    "hand_eye_over_torch": best("hand_eye") / best("torch") if peer else None,
    "logits_differ_by": difference,
    "torch_is_compiled": peer.is_compiled if peer else None,
    "layers": layer_times(config, count, seconds) if layers else [],
  }


def benchmark(
  workdir: str | Path,
  *,
  presets: Sequence[str],
  seconds: float,
  rounds: int = 3,
  batch_size: int = 0,
  dtypes: Sequence[str] = DTYPES,
  layers: bool = True,
) -> dict[str, Any]:
  """Runs the whole benchmark; returns and writes what training.json holds."""
  workdir = cli.prepare_workdir(workdir)
  platform = "cpu" if jax.default_backend() == "cpu" else "other"
  results = []
  for name in presets:
    try:
      config = network.preset(name)
    except ValueError as error:
      raise cli.UserError(f"--presets: {error}") from error
    count = batch_size or BATCH_SIZES[platform].get(name, _DEFAULT_BATCH)
    results.append(measure_preset(config, count, seconds, rounds, dtypes, layers))
  device = jax.devices()[0]
  result = {
    "device": f"{device.platform}: {device.device_kind}",
    "networks": results,
  }
  return harness.write(workdir, "training", result)


def describe(result: dict[str, Any]) -> str:
  """The tables for the terminal."""
  lines = [f"On {result['device']}"]
  for one in result["networks"]:
    lines.append(
      f"\n{one['preset']}, {one['batch_size']} samples a step,"
      f" {one['flop_per_sample'] / 1e9:.2f} GFLOP each"
    )
    rows = [
      (
        row["name"],
        f"{row['samples_per_second']:.1f}",
        f"{row['flop_per_second'] / 1e9:.0f}",
        f"{100 * row['share_of_peak']:.0f} %",
        f"{row['cores']:.1f}",
      )
      for row in one["rows"]
    ]
    header = ("", "samples/s", "GFLOP/s", "of peak", "cores")
    lines.append(cli.table(header, rows, range(1, 5)))
    peaks = ", ".join(
      f"{value / 1e9:.0f} in {dtype}"
      for dtype, value in one["peak_flop_per_second"].items()
    )
    lines.append(f"matrix products: {peaks} GFLOP/s")
    if one["hand_eye_over_torch"] is None:
      lines.append("PyTorch was left out: torch is not installed.")
    else:
      over = one["hand_eye_over_torch"]
      held = "held" if over >= TARGET else "missed"
      compiled = "compiled" if one["torch_is_compiled"] else "not compiled"
      lines.append(
        f"best of hand_eye over best of PyTorch ({compiled}): {over:.2f}, target"
        f" {TARGET} {held}; logits differ by {one['logits_differ_by']:.1e}"
      )
    if not one["layers"]:
      continue
    lines.append("convolutions alone, forward and backward, float32:")
    rows = [
      (
        f"{row['count']} x {row['name']}",
        f"{row['kernel']} x {row['kernel']} on {row['side']} pixels",
        f"{row['ms']:.1f}",
        f"{row['flop_per_second'] / 1e9:.0f}",
        f"{row['cores']:.1f}",
      )
      for row in one["layers"]
    ]
    header = ("", "", "ms", "GFLOP/s", "cores")
    lines.append(cli.table(header, rows, range(2, 5)))
  return "\n".join(lines)


def define_flags() -> None:
  flags.DEFINE_string("workdir", "", "Folder for training.json.")
  flags.DEFINE_list("presets", list(network.PRESETS), "Networks.")
  flags.DEFINE_float("seconds", 3.0, "Of each measurement.", lower_bound=0.01)
  flags.DEFINE_integer("rounds", 3, "Measurements of each; medians count.", 1)
  flags.DEFINE_integer("batch_size", 0, "Samples a step; 0: what suits the device.")
  flags.DEFINE_multi_enum("dtypes", DTYPES, DTYPES, "Number formats; give one or both.")
  flags.DEFINE_bool("layers", True, "Also each kind of convolution alone.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  devices_lib.divide_cpu(os.cpu_count() or 1)
  result = benchmark(
    args.workdir,
    presets=args.presets,
    seconds=args.seconds,
    rounds=args.rounds,
    batch_size=args.batch_size,
    dtypes=args.dtypes,
    layers=args.layers,
  )
  print(describe(result))


if __name__ == "__main__":
  cli.run(main, define_flags)
