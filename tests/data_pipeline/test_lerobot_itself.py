"""What LeRobot's own package makes of an export.

LeRobot pins older versions than constraints.txt, so it needs an environment of its own,
with Python 3.12:

  pip install -e . pytest 'lerobot[dataset]==0.6.1'
  pytest -m slow tests/data_pipeline/test_lerobot_itself.py

Without torchcodec, or with the FFmpeg that it looks for.
"""

import io
import os

import numpy as np
import pytest
from PIL import Image

from data_pipeline import records
from data_pipeline.exporters import lerobot as exporter

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # Before LeRobot is imported.
pytest.importorskip("lerobot", reason="needs the package lerobot[dataset]")
torch = pytest.importorskip("torch")

from lerobot.datasets import dataset_tools  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

pytestmark = pytest.mark.slow
FPS = 2
IMAGES = (exporter.PREGRASP, exporter.IMAGE)
STATISTICS = {"min", "max", "mean", "std", "count", *exporter.QUANTILES}


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
  """An export whose steps are spread over several files."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(exporter, "_FILE_MB", 0.05)
    patch.setattr(exporter, "_EPISODES_AT_ONCE", 5)
    out = exporter.export(dataset, tmp_path_factory.mktemp("out") / "grasps", fps=FPS)
  assert len(list(out.glob("data/*/*.parquet"))) > 2
  return out


@pytest.fixture(scope="module")
def read(folder):
  return LeRobotDataset("hand_eye/grasps", root=folder)


def test_it_reads_every_step_as_it_was_recorded(read, dataset):
  assert (read.num_episodes, len(read), read.fps) == (len(dataset), 72, FPS)
  for number, data in enumerate(dataset):
    record, (pregrasp, *steps) = records.decode(data, images=False), records.jpegs(data)
    for t, jpeg in enumerate(steps):
      item = read[3 * number + t]
      np.testing.assert_array_equal(item["observation.state"], record["poses"][t])
      np.testing.assert_array_equal(item["action"], record["commands"][t])
      assert item["next.done"] == (t == 2)
      assert item["next.success"] == (t == 2 and record["success"])
      assert item["episode_index"] == number and item["timestamp"] == t / FPS
      assert item["task"] == exporter.TASK
      for name, encoded in zip(IMAGES, (pregrasp, jpeg), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(encoded)))
        shown = np.moveaxis(item[name].numpy(), 0, -1)  # [3, H, W] of 0 to 1.
        np.testing.assert_allclose(shown, pixels / 255, atol=1e-6)


def test_actions_ahead_stop_at_the_end_of_an_attempt(folder):
  ahead = {"action": [0, 1 / FPS, 2 / FPS]}
  read = LeRobotDataset("hand_eye/grasps", root=folder, delta_timestamps=ahead)
  item = read[4]  # The second of three steps.
  assert item["action"].shape == (3, 5)
  assert item["action_is_pad"].tolist() == [False, False, True]


def test_it_finds_the_same_statistics(folder, read, tmp_path):
  ours = {name: dict(values) for name, values in read.meta.stats.items()}
  copy = dataset_tools.split_dataset(
    read, {"all": list(range(read.num_episodes))}, output_dir=tmp_path
  )["all"]
  for theirs in (copy.meta.stats, dataset_tools.recompute_stats(copy).meta.stats):
    assert theirs.keys() == ours.keys()
    for name, values in theirs.items():
      for key in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(values[key], ours[name][key], atol=1e-4)


@pytest.fixture(scope="module")
def edited(read, tmp_path_factory):
  """Name: a dataset that LeRobot's tools made of the export, and its attempts."""
  out = tmp_path_factory.mktemp("edited")
  fewer = dataset_tools.delete_episodes(read, [1, 7], out / "fewer", "hand_eye/fewer")
  parts = dataset_tools.split_dataset(fewer, {"a": 0.5, "b": 0.5}, out)
  joined = dataset_tools.merge_datasets(
    [parts["b"], fewer], "hand_eye/joined", out / "joined"
  )
  return {"fewer": (fewer, 22), "part": (parts["b"], 11), "joined": (joined, 33)}


@pytest.mark.parametrize("name", ["fewer", "part", "joined"])
def test_what_it_edits_keeps_all_statistics(edited, name):
  made, attempts = edited[name]
  assert (made.num_episodes, len(made)) == (attempts, 3 * attempts)
  assert made.meta.stats.keys() == made.meta.features.keys()
  for feature, values in made.meta.stats.items():
    assert values.keys() == STATISTICS, feature
  for image in IMAGES:
    assert made.meta.stats[image]["mean"].shape == (3, 1, 1)


def test_its_act_policy_learns_from_what_is_left_after_editing(edited):
  losses = train(edited["joined"][0], num_steps=10)
  assert np.isfinite(losses).all() and losses[-1] < losses[0]


def train(made, num_steps):
  """Losses of a small ACT policy on one batch, made and fed as LeRobot does."""
  from lerobot.configs.types import FeatureType
  from lerobot.policies import factory
  from lerobot.policies.act.configuration_act import ACTConfig
  from lerobot.policies.act.modeling_act import ACTPolicy
  from lerobot.policies.act.processor_act import make_act_pre_post_processors

  features = factory.dataset_to_policy_features(made.meta.features)
  action = {n: f for n, f in features.items() if f.type is FeatureType.ACTION}
  config = ACTConfig(
    input_features={n: f for n, f in features.items() if n not in action},
    output_features=action,
    chunk_size=2,
    n_action_steps=2,
    dim_model=32,
    n_heads=2,
    dim_feedforward=32,
    latent_dim=4,
    n_encoder_layers=1,
    n_vae_encoder_layers=1,
    vision_backbone="resnet18",
    pretrained_backbone_weights=None,
    device="cpu",
  )
  torch.manual_seed(0)
  policy = ACTPolicy(config).train()
  before, _ = make_act_pre_post_processors(config, dataset_stats=made.meta.stats)
  ahead = LeRobotDataset(
    made.repo_id, root=made.root, delta_timestamps={"action": [0, 1 / FPS]}
  )
  batch = before(next(iter(torch.utils.data.DataLoader(ahead, batch_size=2))))
  optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
  losses = []
  for _ in range(num_steps):
    loss, _ = policy.forward(batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
  return np.array(losses)
