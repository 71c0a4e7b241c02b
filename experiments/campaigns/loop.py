"""The campaign itself: collect, train, collect with the new network, and so on.

The loop has no state: each stage reads from the disk what is still missing, so starting
the loop again continues it.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax

from data_pipeline import plan as plan_lib
from envs import fleet
from experiments import collect, evaluate
from experiments.campaigns import collecting, updating
from experiments.campaigns.layout import Layout
from experiments.campaigns.networks import Newest, check_policy
from experiments.campaigns.schedule import Background, Schedule
from experiments.campaigns.settings import CampaignConfig, Round
from experiments.datasets import shard_tasks
from experiments.evaluation import policies
from experiments.fitting import train_config

# Seconds between two looks for the first network that can collect.
_WAIT = 2.0


class Loop:
  """The stages of a campaign, for one machine or a cluster."""

  def __init__(
    self,
    config: Mapping[str, Any],
    campaign: CampaignConfig,
    layout: Layout,
    schedule: Schedule,
    runner: shard_tasks.Runner = fleet.map_unordered,
    tell: Callable[[str], None] = print,
    decider: str = "",
  ):
    """Joins what the stages need.

    Args:
      config, campaign: the config, and its campaign.
      layout: of the work folder.
      schedule: who works when.
      runner: of shards and trials, see `shard_tasks.fill`.
      tell: given a line whenever a stage ends.
      decider: see `PolicySpec`.
    """
    self._config, self._campaign, self._layout = config, campaign, layout
    self._schedule, self._runner, self._tell = schedule, runner, tell
    network = train_config.build_network(config["network"])
    self._frame_size = network.frame_size
    self._newest = Newest(layout, config["servo"], network)
    self._decider = decider
    # Now, not within a stage that limits the threads of what it starts. Of several
    # processes that train together, the first one collects and the others wait.
    self._is_leader = jax.process_index() == 0

  def run(self) -> dict[str, Any]:
    """Goes through all rounds; returns the held-out row of the last update."""
    rounds = self._campaign.rounds
    if self._is_leader:
      collect.collect(self._config, self._layout.data, "held_out", runner=self._runner)
    else:
      self._wait_for("held_out")
    row: dict[str, Any] = {}
    for round_ in rounds:
      self._collect(round_)
      following = rounds[round_.number + 1 : round_.number + 2]
      with self._meanwhile(round_, following[0] if following else None):
        row = self._update(round_)
      if self._campaign.evaluate_updates and self._is_leader:
        self._evaluate(round_)
    return row

  def _meanwhile(
    self, training: Round, following: Round | None
  ) -> AbstractContextManager[Any]:
    if not self._schedule.together or following is None or not self._is_leader:
      return contextlib.nullcontext()
    before = self._campaign.rounds[training.number - 1] if training.number else None

    def latest() -> policies.PolicySpec:
      while (spec := self._newest.landed(before, training)) is None:
        time.sleep(_WAIT)
      return check_policy(spec, following, self._decider)

    return Background(
      lambda: collecting.collect_round(
        self._layout,
        self._campaign,
        following,
        self._frame_size,
        latest,
        num_workers=self._schedule.workers_meanwhile,
        runner=self._runner,
      )
    )

  def _wait_for(self, name: str) -> None:
    """Until the first process has collected a dataset, in a folder that all share."""
    while not plan_lib.is_declared_finished(self._layout.dataset(name)):
      time.sleep(_WAIT)

  def _collect(self, round_: Round) -> None:
    if not self._is_leader:
      self._wait_for(round_.name)
      return

    def latest() -> policies.PolicySpec:
      before = self._campaign.rounds[round_.number - 1]
      return check_policy(self._newest.after(before), round_, self._decider)

    folder = collecting.collect_round(
      self._layout,
      self._campaign,
      round_,
      self._frame_size,
      latest,
      num_workers=self._schedule.workers,
      runner=self._runner,
    )
    self._tell(f"round {round_.number}: {round_.num_attempts} attempts in {folder}")

  def _update(self, round_: Round) -> dict[str, Any]:
    row = updating.update(self._config, self._layout, self._campaign, round_)
    auc = row.get("auc")
    shown = "not defined" if auc is None else f"{auc:.3f}"
    self._tell(f"update {round_.number}: held-out AUC {shown} at step {row['step']}")
    return row

  def _evaluate(self, round_: Round) -> None:
    networks = policies.Networks(servo=str(self._layout.checkpoints(round_)))
    evaluate.evaluate(
      update_evaluation(self._config),
      networks,
      self._layout.evaluation(round_),
      runner=self._runner,
    )


def update_evaluation(config: Mapping[str, Any]) -> Mapping[str, Any]:
  """The config of the evaluation after an update: the servo with replacement alone."""
  made = config.copy_and_resolve_references()  # type: ignore[attr-defined]
  made.evaluate.policies = ("servo",)
  made.evaluate.num_videos = 0
  made.evaluate.without_replacement.repetitions = 0
  return made
