"""The paths of a campaign in its work folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import cli
from experiments.campaigns import settings
from experiments.campaigns.settings import CampaignConfig, Round
from experiments.fitting import train_config

VERSION = "1.0.0"  # of every dataset
PLAN_FILE, PAGE_FILE = "campaign.json", "campaign.html"


@dataclasses.dataclass(frozen=True)
class Layout:
  """The folders and files of a campaign.

  data/round_00/1.0.0, data/held_out/1.0.0   datasets
  train/round_00/                            the update that follows the round
  train/round_00/update.json                 written last: the update is done
  networks/                                  checkpoints that collectors used meanwhile
  evaluate/round_00/, evaluate/              after that update; at the end
  campaign.json, campaign.html               the plan; the live view
  """

  workdir: Path

  @property
  def data(self) -> Path:
    return self.workdir / "data"

  def dataset(self, name: str) -> Path:
    return self.data / name / VERSION

  def update(self, round_: Round) -> Path:
    return self.workdir / "train" / round_.name

  def checkpoints(self, round_: Round) -> Path:
    return self.update(round_) / "checkpoints"

  def update_done(self, round_: Round) -> Path:
    return self.update(round_) / "update.json"

  @property
  def networks(self) -> Path:
    return self.workdir / "networks"

  def evaluation(self, round_: Round) -> Path:
    return self.workdir / "evaluate" / round_.name


def write_plan(
  layout: Layout, config: Mapping[str, Any], campaign: CampaignConfig
) -> None:
  """Writes what is planned, for those who only look on."""
  rounds = [
    {
      "name": round_.name,
      "num_attempts": round_.num_attempts,
      "num_random": round_.num_random,
      "num_steps": train_config.build_train(
        settings.training(config, round_)["train"]
      ).num_steps,
    }
    for round_ in campaign.rounds
  ]
  content = {"rounds": rounds, "batch_size": config["train"]["batch_size"]}
  cli.write_json(layout.workdir / PLAN_FILE, content)
