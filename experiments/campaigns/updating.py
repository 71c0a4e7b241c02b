"""Trains the update that follows a round, or its missing part."""

import json
from collections.abc import Mapping
from typing import Any

import jax

from experiments import cli, train
from experiments.campaigns import settings
from experiments.campaigns.layout import Layout
from experiments.campaigns.settings import Round
from experiments.datasets import options as options_lib
from experiments.fitting import curriculum

# The campaign wrote the datasets itself, with checksums; training meets a broken
# record anyway when it reads it.
_OPTIONS = options_lib.DataOptions(verify="index")


def update(
  config: Mapping[str, Any],
  layout: Layout,
  campaign: settings.CampaignConfig,
  round_: Round,
  loading: curriculum.Loading = curriculum.ONE_THREAD,
) -> dict[str, Any]:
  """Trains after a round, continues to the end, or reads what was reached before.

  Returns:
    The final held-out row, see `train.train`.

  Raises:
    What `train.train` raises; UserError if the update was done with another config.
  """
  asked = describe(config, round_)
  done = layout.update_done(round_)
  if found := cli.read_json(done):
    different = [name for name in asked if found["asked"].get(name) != asked[name]]
    if different:
      raise cli.UserError(
        f"{done} was made with another {', '.join(different)}; go on with that"
        " configuration, or choose another --workdir"
      )
    return found["row"]
  before = campaign.rounds[round_.number - 1] if round_.number else None
  start = layout.checkpoints(before) if before and round_.warm_start else ""
  made = train.train(
    settings.training(config, round_),
    data(layout, campaign, round_),
    [str(layout.dataset("held_out"))],
    layout.update(round_),
    options=_OPTIONS,
    loading=loading,
    init_from=start,
  )
  if jax.process_index():
    return made.metrics
  content = {"asked": asked, "row": made.metrics}
  cli.write_json(done, content)
  return made.metrics


def describe(
  config: Mapping[str, Any],
  round_: Round,
) -> dict[str, Any]:
  """What decides an update, as JSON; the work folder may be moved."""
  made = settings.training(config, round_)
  return json.loads(
    cli.to_json(
      {
        "network": made.network.to_dict(),
        "train": made.train.to_dict(),
        "warm_start": round_.warm_start and round_.number > 0,
        "rounds": round_.sources,
        "weights": round_.weights,
      }
    )
  )


def data(layout: Layout, campaign: settings.CampaignConfig, round_: Round) -> list[str]:
  """The datasets of an update, each with its weight where it has one."""
  folders = [layout.dataset(campaign.rounds[i].name) for i in round_.sources]
  weights = [f":{weight}" for weight in round_.weights] or [""] * len(folders)
  return [f"{folder}{weight}" for folder, weight in zip(folders, weights, strict=True)]
