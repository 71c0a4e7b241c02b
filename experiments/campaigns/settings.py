"""The settings of a campaign: its rounds, from the section `campaign` of a config."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from envs import objects
from experiments import cli
from experiments.collect import CollectConfig
from experiments.fitting import train_config

SCHEDULES = ("auto", "turns", "together")


@dataclasses.dataclass(frozen=True)
class Round:
  """A collection, and the update of the network that follows it.

  Attributes:
    number: from 0.
    num_attempts: exactly so many are written.
    num_steps: T of an attempt is drawn from these.
    random_share: share of the attempts that are made by random commands; the others
      are made by the latest network.
    noise_probability: that a motion of the network is disturbed.
    noise_metres: standard deviation of that noise in x and in y.
    noise_radians: standard deviation of that noise in yaw.
    num_objects: least and most objects in a bin.
    objects: see `envs.objects.choose`; '' for those of config.collect.
    units_at_once: least and most robots that take part in a shift.
    shifts: how often the robots that take part are drawn again.
    warm_start: whether the update starts with the averaged weights of the last one.
    train_on: rounds whose attempts the update learns from; () for all so far.
    weights: share of the batches for each of those rounds; () draws every sample
      equally often.
    train: fields of config.train that differ in this update.
  """

  number: int
  num_attempts: int
  num_steps: tuple[int, ...]
  random_share: float = 0.0
  noise_probability: float = 0.0
  noise_metres: float = 0.02
  noise_radians: float = 0.4
  num_objects: tuple[int, int] = (6, 6)
  objects: str = ""
  units_at_once: tuple[int, int] = (14, 14)
  shifts: int = 1
  warm_start: bool = True
  train_on: tuple[int, ...] = ()
  weights: tuple[float, ...] = ()
  train: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    if self.num_attempts < 1 or self.shifts < 1:
      raise ValueError("num_attempts and shifts: expected at least 1")
    if not self.num_steps or any(int(t) != t or t < 2 for t in self.num_steps):
      raise ValueError(f"num_steps is {self.num_steps}, expected whole numbers from 2")
    for name in ("random_share", "noise_probability"):
      if not 0.0 <= getattr(self, name) <= 1.0:
        raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")
    for name in ("noise_metres", "noise_radians"):
      if not 0.0 <= getattr(self, name) < math.inf:
        raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
    for name in ("num_objects", "units_at_once"):
      pair = getattr(self, name)
      if len(pair) != 2 or not 1 <= pair[0] <= pair[1]:
        raise ValueError(f"{name} is {pair}, expected (least, most) with 1 at least")
    if self.num_objects[1] > objects.MOST:
      raise ValueError(
        f"num_objects is {self.num_objects}, but a bin holds at most {objects.MOST}"
      )
    if self.objects:
      objects.choose(self.objects)
    if any(not 0 <= number <= self.number for number in self.train_on):
      raise ValueError(
        f"train_on is {self.train_on}, expected numbers of rounds up to {self.number}"
      )
    if self.weights and len(self.weights) != len(self.sources):
      raise ValueError(
        f"weights is {self.weights}, expected {len(self.sources)}, one for the data of"
        f" each of the rounds {self.sources}; or () for none"
      )
    if any(not 0 < weight < math.inf for weight in self.weights):
      raise ValueError(f"weights is {self.weights}, expected numbers above 0")

  @property
  def sources(self) -> tuple[int, ...]:
    """The rounds that the update learns from."""
    return self.train_on or tuple(range(self.number + 1))

  @property
  def num_random(self) -> int:
    """Attempts by random commands."""
    return round(self.random_share * self.num_attempts)

  @property
  def noise(self) -> tuple[float, ...]:
    """As in `PolicySpec`: () if no motion is disturbed."""
    if not self.noise_probability:
      return ()
    return (self.noise_probability, self.noise_metres, self.noise_radians)

  @property
  def name(self) -> str:
    """Of its dataset and of its update's folder."""
    return f"round_{self.number:02d}"

  def collecting(self) -> dict[str, Any]:
    """The fields on which its attempts depend, apart from its network."""
    learning = ("warm_start", "train_on", "weights", "train")
    fields = dataclasses.asdict(self)
    return {name: value for name, value in fields.items() if name not in learning}


@dataclasses.dataclass(frozen=True)
class CampaignConfig:
  """A whole campaign.

  Attributes:
    rounds: in order.
    schedule: 'turns': collects, then trains; 'together': collects the next round while
      it trains; 'auto' chooses by what the machine has.
    evaluate_updates: whether the network is evaluated after each update, not only at
      the end.
    cpu_devices: devices that a CPU is divided into while training; 0 for one a core, 1
      where collecting goes on meanwhile.
    refresh: seconds between two versions of the page.
    collect: what all rounds share.
  """

  rounds: tuple[Round, ...]
  collect: CollectConfig
  schedule: str = "auto"
  evaluate_updates: bool = False
  cpu_devices: int = 0
  refresh: float = 15.0

  def __post_init__(self) -> None:
    if self.schedule not in SCHEDULES:
      raise ValueError(f"schedule is {self.schedule!r}, expected one of {SCHEDULES}")
    if not self.rounds:
      raise ValueError("rounds is empty, expected one at least")
    if self.rounds[0].random_share != 1.0:
      raise ValueError(
        f"random_share of the first round is {self.rounds[0].random_share}, expected 1:"
        " there is no network yet"
      )
    if self.cpu_devices < 0 or self.refresh <= 0:
      raise ValueError("expected cpu_devices of at least 0 and refresh above 0")
    for round_ in self.rounds:
      if round_.units_at_once[1] > self.collect.num_units:
        raise ValueError(
          f"units_at_once of round {round_.number} is {round_.units_at_once}, but"
          f" config.collect.num_units is {self.collect.num_units}"
        )

  @property
  def num_attempts(self) -> int:
    """Of all rounds, without the held-out ones."""
    return sum(round_.num_attempts for round_ in self.rounds)

  @property
  def random_share(self) -> float:
    """Share of all attempts that are random in the end."""
    return sum(round_.num_random for round_ in self.rounds) / self.num_attempts


def build(config: Mapping[str, Any]) -> CampaignConfig:
  """The campaign of a config: its sections `campaign`, `collect` and `train`.

  The rounds are the entries r0, r1, ... of `campaign.rounds`.

  Raises:
    UserError: names the field that is wrong.
  """
  if "campaign" not in config:
    raise cli.UserError(
      "the config has no section `campaign`; add one, as configs/demo"
    )
  section = dict(config["campaign"].items())
  entries = dict(section.pop("rounds").items())
  collect = cli.build(CollectConfig, config["collect"], "collect")
  rounds = []
  for number in range(len(entries)):
    name = f"r{number}"
    if name not in entries:
      raise cli.UserError(
        f"config.campaign.rounds has {', '.join(sorted(entries))}; expected r0 to"
        f" r{len(entries) - 1}"
      )
    fields = dict(entries[name].items())
    overrides = fields.pop("train", None) or {}
    fields["train"] = _plain(overrides)
    made = cli.build(Round, fields, f"campaign.rounds.{name}", number=number)
    train_config.build_train(training(config, made)["train"])  # names what is wrong
    rounds.append(made)
  return cli.build(
    CampaignConfig, section, "campaign", rounds=tuple(rounds), collect=collect
  )


def training(config: Mapping[str, Any], round_: Round) -> ConfigDict:
  """The config with which the update after a round is trained."""
  made = ConfigDict(
    {
      "network": dict(config["network"].items()),
      "train": _plain(config["train"]),
    },
    convert_dict=True,
  )
  _override(made.train, round_.train, f"campaign.rounds.r{round_.number}.train")
  return made


def _override(section: ConfigDict, fields: Mapping[str, Any], name: str) -> None:
  for field, value in fields.items():
    if field not in section:
      raise cli.UserError(
        f"config.{name}: unknown field {field!r}; config.train has:"
        f" {', '.join(sorted(section.keys()))}"
      )
    if isinstance(value, Mapping):
      _override(section[field], value, f"{name}.{field}")
    elif value is not None:
      with section.ignore_type():
        section[field] = value


def _plain(section: Mapping[str, Any]) -> dict[str, Any]:
  """Nested dicts of a section, with the fields that are None left in."""
  return {
    name: _plain(value) if isinstance(value, ConfigDict | Mapping) else value
    for name, value in dict(section.items()).items()
  }
