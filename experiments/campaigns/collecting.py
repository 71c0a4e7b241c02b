"""Collects a round, or its missing part."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

from data_pipeline import finish, writer
from data_pipeline import plan as plan_lib
from envs import fleet
from experiments import cli
from experiments.campaigns.layout import Layout
from experiments.campaigns.rounds import Shard, plan_shards
from experiments.campaigns.settings import CampaignConfig, Round
from experiments.datasets import shard_tasks
from experiments.evaluation import policies


class LatestTasks(Sequence[shard_tasks.ShardTask]):
  """Tasks that get their network when they are given to a worker, not before."""

  def __init__(
    self,
    directory: Path,
    shards: Sequence[Shard],
    round_: Round,
    latest: Callable[[], policies.PolicySpec],
  ):
    self._directory, self._shards, self._round = directory, shards, round_
    self._latest = latest
    self._software = cli.to_json(cli.versions())

  def __len__(self) -> int:
    return len(self._shards)

  @overload
  def __getitem__(self, index: int) -> shard_tasks.ShardTask: ...
  @overload
  def __getitem__(self, index: slice) -> Sequence[shard_tasks.ShardTask]: ...
  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    shard = self._shards[index]
    return shard_tasks.ShardTask(
      directory=str(self._directory.absolute()),  # it may travel far
      shard=shard.number,
      scenes=shard.scenes,
      policy=policies.RANDOM if shard.is_random else self._latest(),
      round=self._round.number,
      software=self._software,
    )


def begin_round(
  layout: Layout, campaign: CampaignConfig, round_: Round, frame_size: int
) -> tuple[Path, list[Shard]]:
  """Makes the folder of a round's dataset, or finds it again.

  Raises:
    DatasetError: it was begun with another configuration.
  """
  shards = plan_shards(round_, campaign.collect, frame_size)
  shared = campaign.collect.deciding("train")
  for name in ("num_attempts", "num_objects", "num_steps"):
    shared.pop(name)  # a round has its own
  directory = plan_lib.begin(
    layout.data,
    plan_lib.Plan(
      name=round_.name,
      num_shards=len(shards),
      frame_size=frame_size,
      config={
        **shared,
        "round": round_.collecting(),
        "mujoco": cli.versions()["mujoco"],
      },
    ),
  )
  return directory, shards


def collect_round(
  layout: Layout,
  campaign: CampaignConfig,
  round_: Round,
  frame_size: int,
  latest: Callable[[], policies.PolicySpec],
  *,
  num_workers: int = 0,
  runner: shard_tasks.Runner = fleet.map_unordered,
) -> Path:
  """Collects a round, or goes on with it.

  Args:
    layout, campaign, round_: of the campaign.
    frame_size: pixels.
    latest: asked for the network whenever a shard is begun that needs one.
    num_workers: processes, 0 for one a core.
    runner: of the shards, see `shard_tasks.fill`.

  Returns:
    The folder of the finished dataset.
  """
  directory, shards = begin_round(layout, campaign, round_, frame_size)
  pending = set(writer.pending_shards(directory))
  if pending or not plan_lib.is_declared_finished(directory):
    missing = [shard for shard in shards if shard.number in pending]
    if missing:
      shard_tasks.fill(
        LatestTasks(directory, missing, round_, latest),
        round_.num_attempts,
        sum(shard.num_attempts for shard in missing),
        label=f"round {round_.number}",
        num_workers=num_workers,
        runner=runner,
      )
    finish.finalize(directory)
  return directory
