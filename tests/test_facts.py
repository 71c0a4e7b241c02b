"""What libraries do that this project depends on, and that their pages do not say.

Each test names the version in which it was found. One that fails after an upgrade says
that the code which depends on it, named in its docstring, has to be looked at again.
"""

import math
import subprocess
import sys
import types

import jax.numpy as jnp
import mujoco
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from hand_eye import checkpoint
from tests.data_pipeline import synthetic

BOX_ON_FLOOR = """
<mujoco>
  <option><flag sleep="enable"/></option>
  <worldbody>
    <geom type="plane" size="1 1 0.1"/>
    <body pos="0 0 0.05">
      <freejoint/>
      <geom type="box" size="0.05 0.05 0.05" mass="0.1"/>
    </body>
  </worldbody>
</mujoco>
"""


def wakes(change):
  """Whether a change of (model, data) wakes a box that sleeps on the floor."""
  model = mujoco.MjModel.from_xml_string(BOX_ON_FLOOR)
  data = mujoco.MjData(model)
  while data.tree_awake[0]:
    mujoco.mj_step(model, data)
    assert data.time < 1.0, "it never sleeps"
  change(model, data)
  mujoco.mj_step(model, data)
  mujoco.mj_step(model, data)
  return bool(data.tree_awake[0])


def _set(array, index, value):
  array[index] = value


@pytest.mark.parametrize(
  "change",
  [
    lambda _, data: _set(data.qpos, 2, np.nextafter(data.qpos[2], 1)),
    lambda _, data: _set(data.qvel, 2, 1e-300),
    lambda _, data: _set(data.xfrc_applied, (1, 2), 1e-300),
    lambda _, data: _set(data.qfrc_applied, 2, 1e-300),
  ],
  ids=["qpos", "qvel", "xfrc_applied", "qfrc_applied"],
)
def test_any_bit_of_state_or_force_wakes_a_body(change):
  """MuJoCo 3.17; `GraspEnv.push` counts on it."""
  assert wakes(change)


@pytest.mark.parametrize(
  "change",
  [
    lambda model, _: None,
    lambda model, _: _set(model.opt.gravity, 2, 5.0),
    lambda model, _: _set(model.geom_pos, (0, 2), -0.3),
    lambda model, _: _set(model.geom_friction, (0, 0), 0.0),
  ],
  ids=["nothing", "gravity", "floor", "friction"],
)
def test_no_field_of_the_model_wakes_a_body(change):
  """MuJoCo 3.17: `GraspEnv` wakes what it takes the ground from."""
  assert not wakes(change)


TWO_BOXES = """
<mujoco>
  <option><flag sleep="enable"/></option>
  <worldbody>
    <geom type="plane" size="1 1 0.1"/>
    <body pos="0 0 0.05">
      <joint name="a" type="slide" axis="0 0 1"/>
      <geom type="box" size="0.05 0.05 0.05"/>
    </body>
    <body pos="0.3 0 0.05">
      <joint name="b" type="slide" axis="0 0 1"/>
      <geom type="box" size="0.05 0.05 0.05"/>
    </body>
  </worldbody>
  <tendon>
    <fixed name="both" {stiffness}>
      <joint joint="a" coef="1"/><joint joint="b" coef="-1"/>
    </fixed>
  </tendon>
  {equality}
</mujoco>
"""


def test_bodies_that_a_tendon_binds_cannot_sleep():
  """MuJoCo 3.17: so soft bodies have no core that a tendon binds to their corners."""
  equality = '<equality><tendon tendon1="both"/></equality>'
  model = mujoco.MjModel.from_xml_string(
    TWO_BOXES.format(stiffness="", equality=equality)
  )
  with pytest.raises(mujoco.FatalError, match="does not yet support sleeping"):
    mujoco.mj_step(model, mujoco.MjData(model))
  for stiffness, sleeps in (('stiffness="10"', False), ("", True)):
    model = mujoco.MjModel.from_xml_string(
      TWO_BOXES.format(stiffness=stiffness, equality="")
    )
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, nstep=2000)
    assert (not data.tree_awake.any()) == sleeps


def _kept(policy, scores):
  infos = [
    types.SimpleNamespace(step=step, metrics=None if score is None else {"s": score})
    for step, score in enumerate(scores)
  ]
  context = ocp.checkpoint_managers.PreservationContext()
  flags = policy.should_preserve(infos, context=context)
  return [info.step for info, kept in zip(infos, flags, strict=True) if kept]


def test_the_best_of_orbax_is_the_later_of_equals_and_may_be_nan():
  """orbax-checkpoint 0.12.8; `hand_eye.checkpoint` keeps its own and saves no NaN."""
  best = ocp.checkpoint_managers.BestN(
    n=1, get_metric_fn=lambda m: m["s"], keep_checkpoints_without_metrics=False
  )
  assert _kept(best, [0.9, 0.5, 0.9, 0.1]) == [2]
  assert _kept(best, [0.9, 0.5, math.nan]) == [2]
  assert checkpoint.best_of({0: 0.9, 1: 0.5, 2: 0.9, 3: 0.1}) == 2


def test_a_file_of_records_is_never_below_128_kib(tmp_path):
  """array_record 0.8: shards of a few attempts waste space, so a shard holds many."""
  path = tmp_path / "one.array_record"
  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  writer.write(b"ten bytes.")
  writer.close()
  assert path.stat().st_size == 128 * 1024


def test_tfds_rounds_percentages_half_to_even_and_refuses_empty_parts(tmp_path):
  """tensorflow-datasets 4.9: of ten attempts 25 % are two, and 35 % are four."""
  folder = synthetic.write_synthetic_dataset(tmp_path, num_attempts=10)
  builder = tfds.builder_from_directory(folder)
  sizes = [len(builder.as_data_source(f"train[:{p}%]")) for p in (25, 35, 45)]
  assert sizes == [2, 4, 4]
  with pytest.raises(ValueError, match="can not be of 0 length"):
    builder.as_data_source("train[:4%]")


def test_openvino_computes_in_bfloat16_where_the_processor_can():
  """OpenVINO 2026.4; `hand_eye.deploy.engine` always says which it wants."""
  openvino = pytest.importorskip("openvino")
  core = openvino.Core()
  if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
    pytest.skip("this processor has no products in bfloat16")
  given = openvino.opset13.parameter([1, 4], np.float32)
  model = openvino.Model([openvino.opset13.relu(given)], [given])
  for asked, expected in (({}, "bf16"), ({"INFERENCE_PRECISION_HINT": "f32"}, "f32")):
    compiled = core.compile_model(model, "CPU", asked)
    found = compiled.get_property("INFERENCE_PRECISION_HINT")
    assert found == getattr(openvino.Type, expected)


def test_clipping_turns_a_large_finite_gradient_into_zero():
  """optax 0.2: its square overflows, and the norm is infinite.

  `experiments.fitting.meter` looks at the norm, so that such a step is an error.
  """
  clip = optax.clip_by_global_norm(1.0)
  gradient = jnp.array([1e20, 1.0], jnp.float32)
  np.testing.assert_array_equal(clip.update(gradient, clip.init(gradient))[0], [0, 0])
  assert not np.isfinite(optax.global_norm(gradient))


TWO_WORKERS = """
import grain
from absl import flags

def numbers(num_workers):
  options = grain.MultiprocessingOptions(num_workers=num_workers)
  return iter(grain.MapDataset.range(20).to_iter_dataset().mp_prefetch(options))

if __name__ == "__main__":
  flags.FLAGS(["program"])
  one, two = numbers(1), numbers(2)
  next(one)
  two.set_state(one.get_state())
  try:
    print(list(two))
  except IndexError:
    print("refused")
"""


@pytest.mark.slow
def test_the_state_of_grains_workers_is_bound_to_their_number(tmp_path):
  """grain 0.2: `data_pipeline.loader` saves a position of its own instead."""
  program = tmp_path / "program.py"
  program.write_text(TWO_WORKERS)
  done = subprocess.run(
    [sys.executable, program], capture_output=True, text=True, timeout=120
  )
  assert done.stdout.strip() == "refused", done.stderr
