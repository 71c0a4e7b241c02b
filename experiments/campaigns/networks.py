"""The network that collectors use: the newest that is good enough."""

import dataclasses
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from experiments import cli
from experiments.campaigns.layout import Layout
from experiments.campaigns.settings import Round
from experiments.evaluation import policies
from hand_eye import checkpoint, network


class Newest:
  """Finds the newest network of a campaign, whenever a shard is begun.

  Of an update that is done, that is its best checkpoint. While the next one trains, its
  best checkpoint so far takes over once it is as good on held-out data as the one
  before; until then an update that began from random weights would be a step back.
  Such a checkpoint is copied to `networks/`, as training removes those that it does
  not need, so that the network of every attempt can be found again.
  """

  def __init__(
    self, layout: Layout, servo: Mapping[str, Any], expected: network.NetworkConfig
  ):
    self._layout, self._servo, self._expected = layout, servo, expected
    self._lock = threading.Lock()
    self._known: dict[Path, policies.PolicySpec] = {}

  def after(self, round_: Round) -> policies.PolicySpec:
    """The network of an update that is done."""
    return self._spec(self._layout.checkpoints(round_))

  def landed(self, before: Round | None, training: Round) -> policies.PolicySpec | None:
    """The newest network while an update is training.

    Args:
      before: the last round whose update is done, if there is one.
      training: the round whose update is under way, or done meanwhile.

    Returns:
      None if there is none yet.
    """
    with self._lock:
      if self._layout.update_done(training).exists():
        return self.after(training)
      old = self._score(self._layout.checkpoints(before)) if before else None
      new = self._score(self._layout.checkpoints(training))
      if new is not None and (old is None or new[1] >= old[1]):
        if kept := self._keep(training, new[0]):
          return self._spec(kept)
      return self.after(before) if before else None

  def _spec(self, folder: Path) -> policies.PolicySpec:
    if folder not in self._known:
      made = policies.servo_spec(folder, self._servo, self._expected, flag="checkpoint")
      # Steps alone are the same in every round.
      source = folder.parent.name if folder.name == "checkpoints" else folder.name
      self._known[folder] = dataclasses.replace(
        made, version=f"{source.partition('-')[0]}-{made.version}"
      )
    return self._known[folder]

  def _score(self, folder: Path) -> tuple[int, float] | None:
    """Step and held-out score of the best checkpoint, or None."""
    try:
      scores = checkpoint.scores(folder)
    except (checkpoint.CheckpointError, OSError):
      return None  # One that is being written or removed; there is a next time.
    if not scores:
      return None
    best = checkpoint.best_of(scores)
    return best, scores[best]

  def _keep(self, round_: Round, step: int) -> Path | None:
    """A copy of a checkpoint that stays; None if it went away meanwhile."""
    kept = self._layout.networks / f"{round_.name}-{step:07d}"
    if kept.is_dir():
      return kept
    self._layout.networks.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self._layout.networks))
    try:
      shutil.copytree(
        self._layout.checkpoints(round_) / str(step), temporary / str(step)
      )
      checkpoint.load_policy(temporary, step=step)
      temporary.rename(kept)
    except (OSError, checkpoint.CheckpointError) as error:
      logging.info("checkpoint %d of %s is not used: %s", step, round_.name, error)
      shutil.rmtree(temporary, ignore_errors=True)
    return kept if kept.is_dir() else None


def check_policy(
  spec: policies.PolicySpec | None, round_: Round, decider: str = ""
) -> policies.PolicySpec:
  """Raises UserError if a round has no network to collect with."""
  if spec is None:
    raise cli.UserError(
      f"round {round_.number} needs a network, but none has landed; train first"
    )
  return dataclasses.replace(spec, noise=round_.noise, decider=decider)
