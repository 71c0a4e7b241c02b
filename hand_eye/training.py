"""Training of the predictor: state and steps, data parallel over a mesh.

A step is a compiled function `(state, batch) -> (state, metrics)`; the state is
donated. The network and the optimizer are closed over. One device and many run the same
code: the batch is split over the mesh and the state is copied to all of it. The step is
one program on global arrays, so gradients and, by default, batch norm's statistics are
those of the whole batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hand_eye import losses, network

DATA_AXIS = "data"

BATCH_NORMS = ("global", "per_device")


@chex.dataclass(frozen=True)
class Batch:
  """Samples (I0, It, p_T - p_t, success) of Section 4.1.

  pregrasp_image: [B, S, S, 3] uint8 RGB, the scene before the gripper came into view.
  image: [B, S, S, 3] uint8 RGB at step t.
  command: [B, 5] float32, from the pose of step t to the one where the gripper closed;
    robot base frame, (dx, dy, dz) metres, (sin, cos) of the change in yaw.
  success: [B] float32, 1 if the attempt grasped something, else 0.
  pose: [B, 4] float32 measured pose at step t, and
  crop_offset: [B, 2] float32 (row, column) of the crop from the frame's middle one,
    pixels: targets of architectures with an auxiliary loss, never inputs of a network;
    None for those without.
  """

  pregrasp_image: chex.Array
  image: chex.Array
  command: chex.Array
  success: chex.Array
  pose: chex.Array | None = None
  crop_offset: chex.Array | None = None


@chex.dataclass(frozen=True)
class TrainState:
  """All that training changes.

  step: [] int32, number of steps taken.
  params: parameters, as the optimizer sees them.
  batch_stats: running statistics of batch norm.
  opt_state: state of the optimizer.
  ema_params: moving average of `params`. These are evaluated and exported.
  ema_batch_stats: moving average of `batch_stats`, that goes with `ema_params`.
  """

  step: chex.Array
  params: chex.ArrayTree
  batch_stats: chex.ArrayTree
  opt_state: chex.ArrayTree
  ema_params: chex.ArrayTree
  ema_batch_stats: chex.ArrayTree


@chex.dataclass(frozen=True)
class TrainMetrics:
  """What one step of training reports.

  sums: `losses.MetricSums` of the batch, before the update.
  gradient_norm: [] global norm of the gradient, before clipping.
  auxiliary: [] mean of the auxiliary loss; 0 without one.
  finite: [] bool, whether loss and gradient are. If not, the state that the step
    returned is worthless: stop, and go back to a checkpoint.
  """

  sums: losses.MetricSums
  gradient_norm: chex.Array
  auxiliary: chex.Array
  finite: chex.Array


def make_mesh(devices: list[jax.Device] | None = None) -> jax.sharding.Mesh:
  """Returns a mesh of one axis, for data parallelism, over all devices or these."""
  return jax.sharding.Mesh(np.asarray(devices or jax.devices()), (DATA_AXIS,))


def shard_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """Places a tree of host arrays [B, ...] on the mesh, split along B.

  With several hosts each gives its own share, and they are joined.

  Raises:
    ValueError: if B does not divide over the devices of this host.
  """
  sharding = _split(mesh)
  devices = len(mesh.local_devices)
  for size in {len(leaf) for leaf in jax.tree.leaves(batch)}:
    if size % devices:
      raise ValueError(
        f"a batch of {size} does not divide over {devices} devices: choose a multiple"
        f" of {devices}."
      )
  # Meant, so allowed under a guard; JAX takes it for an implicit one with many hosts.
  with jax.transfer_guard_host_to_device("allow"):
    return jax.tree.map(
      lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)),
      batch,
    )


def init_state(
  predictor: network.Predictor,
  optimizer: optax.GradientTransformation,
  key: chex.PRNGKey,
  *,
  mesh: jax.sharding.Mesh | None = None,
) -> TrainState:
  """Returns the state before the first step, on all of `mesh`. The key is consumed."""

  def init(key):
    params, batch_stats = predictor.init(key)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=batch_stats,
      opt_state=optimizer.init(params),
      ema_params=params,
      ema_batch_stats=batch_stats,
    )

  state = network.jit_once(init, out_shardings=_everywhere(mesh or make_mesh()))(key)
  # The step donates its state, so no buffer may appear in it twice.
  return jax.tree.map(jnp.copy, state)


def start_from(
  state: TrainState, params: chex.ArrayTree, batch_stats: chex.ArrayTree
) -> TrainState:
  """Returns a new state with these weights, averages included; the rest is kept.

  Args:
    state: of `init_state`, for a network of the same shapes.
    params, batch_stats: arrays of NumPy or JAX.
  """

  def placed(old, new):
    # A copy: placing may alias NumPy's memory, and the step donates its state.
    return jnp.copy(jax.device_put(new, old.sharding))

  return dataclasses.replace(
    state,
    params=jax.tree.map(placed, state.params, params),
    batch_stats=jax.tree.map(placed, state.batch_stats, batch_stats),
    ema_params=jax.tree.map(placed, state.ema_params, params),
    ema_batch_stats=jax.tree.map(placed, state.ema_batch_stats, batch_stats),
  )


def make_train_step(
  predictor: network.Predictor,
  optimizer: optax.GradientTransformation,
  *,
  ema_decay: float = 0.999,
  mesh: jax.sharding.Mesh | None = None,
  batch_norm: str = "global",
  auxiliary_weight: float = 1.0,
  auxiliary_steps: int = 0,
) -> Callable[[TrainState, Batch], tuple[TrainState, TrainMetrics]]:
  """Builds the compiled step of training.

  Args:
    predictor: the network.
    optimizer: from `optimizers.make_optimizer`.
    ema_decay: of the moving averages, once warm. Early steps average over less, see
      `_ema_decay`, so that a short run does not evaluate its initial weights.
    mesh: devices to train on; all of them if absent.
    batch_norm: whose mean and variance normalise a batch: those of the `global` one,
      so that the number of devices changes nothing, or those of its share
      `per_device`, which saves a sum over all devices a layer; the running ones are
      then the mean over devices.
    auxiliary_weight: factor of the auxiliary loss, of architectures that have one.
    auxiliary_steps: first steps, which learn the auxiliary targets alone, where the
      architecture has any.

  Returns:
    `(state, batch) -> (state, TrainMetrics)`. The state given is donated: use the new
    one. The batch may be host arrays on one host, or from `shard_batch`.

  Raises:
    ValueError: if `batch_norm` is none of `BATCH_NORMS`.
  """
  mesh = mesh or make_mesh()
  check_batch_norm(batch_norm)
  if predictor.apply_with_auxiliary is None:
    auxiliary_steps = 0

  def forward(params, batch_stats, batch):
    images = stack_images(batch)
    if predictor.apply_with_auxiliary is None:
      logits, new_stats = predictor.apply(
        params, batch_stats, images, batch.command, train=True
      )
      return logits, jnp.zeros(()), new_stats
    if batch.pose is None or batch.crop_offset is None:
      raise ValueError(
        f"the architecture {predictor.config.architecture!r} has auxiliary targets, but"
        " the batch has no pose or no crop_offset."
      )
    logits, auxiliary, new_stats = predictor.apply_with_auxiliary(
      params, batch_stats, images, batch.command, batch.pose, batch.crop_offset
    )
    return logits, jnp.mean(auxiliary), new_stats

  def differentiate(params, batch_stats, batch, step):
    """Returns the gradient, and ((loss, auxiliary), logits, batch_stats)."""

    def loss_fn(params):
      logits, auxiliary, new_stats = forward(params, batch_stats, batch)
      loss = jnp.mean(losses.cross_entropy(logits, batch.success))
      counts = jnp.where(step < auxiliary_steps, 0.0, 1.0)
      total = counts * loss + auxiliary_weight * auxiliary
      return total, ((loss, auxiliary), logits, new_stats)

    (_, made), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return gradient, made

  if batch_norm == "per_device":
    differentiate = _on_each_device(differentiate, mesh)

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, TrainMetrics]:
    gradient, ((loss, auxiliary), logits, batch_stats) = differentiate(
      state.params, state.batch_stats, batch, state.step
    )
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = _ema_decay(ema_decay, state.step)
    gradient_norm = optax.tree.norm(gradient)
    new_state = TrainState(
      step=state.step + 1,
      params=params,
      batch_stats=batch_stats,
      opt_state=opt_state,
      ema_params=optax.incremental_update(params, state.ema_params, 1 - decay),
      ema_batch_stats=optax.incremental_update(
        batch_stats, state.ema_batch_stats, 1 - decay
      ),
    )
    metrics = TrainMetrics(
      sums=losses.metric_sums(logits, batch.success),
      gradient_norm=gradient_norm,
      auxiliary=auxiliary,
      finite=jnp.isfinite(loss) & jnp.isfinite(gradient_norm),
    )
    return new_state, metrics

  return jax.jit(
    train_step,
    donate_argnums=0,
    in_shardings=(_everywhere(mesh), _split(mesh)),
    out_shardings=_everywhere(mesh),
  )


def check_batch_norm(name: str) -> None:
  """Raises ValueError unless this is one of `BATCH_NORMS`."""
  if name not in BATCH_NORMS:
    raise ValueError(f"batch_norm is {name!r}, expected one of {BATCH_NORMS}.")


def _on_each_device(differentiate: Callable, mesh: jax.sharding.Mesh) -> Callable:
  """Runs it on each device's share of the batch, and averages what it returns."""
  everywhere, split = (
    jax.sharding.PartitionSpec(),
    jax.sharding.PartitionSpec(DATA_AXIS),
  )

  def local(params, batch_stats, batch, step):
    gradient, (loss, logits, new_stats) = differentiate(
      params, batch_stats, batch, step
    )
    mean = jax.lax.pmean((gradient, loss, new_stats), DATA_AXIS)
    return mean[0], (mean[1], logits, mean[2])

  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(everywhere, everywhere, split, everywhere),
    out_specs=(everywhere, (everywhere, split, everywhere)),
    check_vma=False,  # Else the gradient of what is everywhere is summed for us.
  )


def make_eval_step(
  predictor: network.Predictor, *, mesh: jax.sharding.Mesh | None = None
) -> Callable[..., tuple[losses.MetricSums, chex.Array]]:
  """Builds the compiled step of evaluation, with the averaged weights.

  Returns:
    `(state, batch, weight=None) -> (MetricSums, probabilities [B])`. `weight` [B] is
    1 for samples and 0 for the padding of a last batch.
  """
  mesh = mesh or make_mesh()

  def eval_step(state, batch, weight):
    logits, _ = predictor.apply(
      state.ema_params,
      state.ema_batch_stats,
      stack_images(batch),
      batch.command,
      train=False,
    )
    sums = losses.metric_sums(logits, batch.success, weight)
    return sums, jax.nn.sigmoid(logits)

  compiled = jax.jit(
    eval_step,
    in_shardings=(_everywhere(mesh), _split(mesh), _split(mesh)),
    out_shardings=_everywhere(mesh),
  )

  def step(state: TrainState, batch: Batch, weight: chex.Array | None = None):
    if weight is None:
      weight = np.ones(batch.success.shape, np.float32)
    return compiled(state, batch, weight)

  return step


def stack_images(batch: Batch) -> chex.Array:
  """Returns the network's images [B, S, S, 6] of a batch."""
  return jnp.concatenate([batch.pregrasp_image, batch.image], axis=-1)


def _ema_decay(decay: float, step: chex.Array) -> chex.Array:
  step = step.astype(jnp.float32)
  return jnp.minimum(decay, (1 + step) / (10 + step))


def _everywhere(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _split(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(DATA_AXIS))
