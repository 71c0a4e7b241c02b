"""Problems of a fleet: robots that got worse, black cameras, bad physics."""

import collections
import dataclasses
from collections.abc import Sequence

from scipy import stats

from experiments.campaigns.state import RoundState, Scene, State, count

# A chance of false alarm so small that one in a campaign is rare, although every robot
# is looked at again whenever it has made a scene.
CHANCE = 1e-5
RECENT = 64  # attempts of a robot that are compared with those before
LEAST_BRIGHTNESS = 8.0  # of 255, mean of an image
LEAST_CONTRAST = 2.0  # standard deviation
MOST_DIVERGED = 0.05  # share of the attempts
LEAST_DIVERGED = 5  # attempts
STALLED = 10.0  # times as long as the longest pause so far


@dataclasses.dataclass(frozen=True)
class Alarm:
  """Something to look at.

  Attributes:
    kind: 'success', 'camera', 'physics' or 'stalled'.
    where: the robot; '' for the whole fleet.
    text: what was found, what was expected, what to do.
  """

  kind: str
  where: str
  text: str


def find(state: State) -> list[Alarm]:
  """All that is wrong at this moment. It goes away when the files say so."""
  found: list[Alarm] = []
  begun = [round_ for round_ in state.rounds if round_.scenes]
  for round_ in begun[-1:]:  # What was before is history.
    found += fallen(round_)
    found += behind(round_)
    found += black(round_.scenes)
    found += diverging(round_.scenes)
  return found + stalled(state)


def fallen(round_: RoundState) -> list[Alarm]:
  """Robots that succeed less often than they did with the same policy."""
  found = []
  for (unit, policy), scenes in _by_robot(round_.scenes).items():
    early, late = _split(scenes)
    before, now = count(early), count(late)
    if before.attempts < RECENT or now.attempts < RECENT:
      continue
    if _less(now.successes, now.attempts, before.successes, before.attempts) < CHANCE:
      found.append(
        Alarm(
          "success",
          unit,
          f"{unit} succeeds in {_percent(now.rate)} of its last {now.attempts}"
          f" attempts ({policy}), before in {_percent(before.rate)} of"
          f" {before.attempts}; look at its gripper and camera",
        )
      )
  return found


def behind(round_: RoundState) -> list[Alarm]:
  """Robots that succeed far less often than the others with the same policy."""
  found = []
  robots = _by_robot(round_.scenes)
  for (unit, policy), scenes in robots.items():
    rest = [s for (u, p), group in robots.items() if u != unit and p == policy
            for s in group]  # fmt: skip
    mine, theirs = count(scenes), count(rest)
    if mine.attempts < RECENT or theirs.attempts < RECENT:
      continue
    # Robots differ by nature, by some points of a hundred: only half as often alarms.
    if mine.rate < theirs.rate / 2 and (
      _less(mine.successes, mine.attempts, theirs.successes, theirs.attempts) < CHANCE
    ):
      found.append(
        Alarm(
          "success",
          unit,
          f"{unit} succeeds in {_percent(mine.rate)} of {mine.attempts} attempts"
          f" ({policy}), the other robots in {_percent(theirs.rate)}; look at its"
          " gripper and camera",
        )
      )
  return found


def black(scenes: Sequence[Scene]) -> list[Alarm]:
  """Robots whose camera sees nothing in their last bin."""
  last = {scene.unit: scene for scene in scenes if scene.attempts}
  return [
    Alarm(
      "camera",
      unit,
      f"{unit}'s camera is black or of one colour: mean brightness"
      f" {scene.brightness:.0f} of 255, contrast {scene.contrast:.1f}; check camera and"
      " lights",
    )
    for unit, scene in sorted(last.items())
    if scene.brightness < LEAST_BRIGHTNESS or scene.contrast < LEAST_CONTRAST
  ]


def diverging(scenes: Sequence[Scene]) -> list[Alarm]:
  """Robots whose attempts are often dropped because the physics are unstable."""
  lost: collections.Counter[str] = collections.Counter()
  made: collections.Counter[str] = collections.Counter()
  for scene in scenes:
    lost[scene.unit] += scene.diverged
    made[scene.unit] += scene.attempts
  return [
    Alarm(
      "physics",
      unit,
      f"{lost[unit]} of {lost[unit] + made[unit]} attempts of {unit} diverged, expected"
      f" at most {_percent(MOST_DIVERGED)}; check its objects and arm with python -m"
      " experiments.check_cell",
    )
    for unit in sorted(lost)
    if lost[unit] >= LEAST_DIVERGED
    and lost[unit] > MOST_DIVERGED * (lost[unit] + made[unit])
  ]


def stalled(state: State) -> list[Alarm]:
  """Nothing has come for far longer than ever before, while attempts are missing."""
  for round_ in state.rounds:
    if round_.is_collected or not round_.scenes:
      continue
    times = sorted({scene.finished for scene in round_.scenes})
    pauses = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    since = state.now - times[-1]
    if len(pauses) >= 5 and since > max(60.0, STALLED * max(pauses)):
      return [
        Alarm(
          "stalled",
          "",
          f"no attempt of round {round_.number} has come for {since / 60:.0f} minutes;"
          " start the same command again if it is not running",
        )
      ]
  return []


def _by_robot(scenes: Sequence[Scene]) -> dict[tuple[str, str], list[Scene]]:
  groups: dict[tuple[str, str], list[Scene]] = collections.defaultdict(list)
  for scene in scenes:
    groups[scene.unit, scene.policy].append(scene)
  return groups


def _split(scenes: list[Scene]) -> tuple[list[Scene], list[Scene]]:
  """Those before, and the last ones with RECENT attempts."""
  late, place = 0, len(scenes)
  while place and late < RECENT:
    place -= 1
    late += scenes[place].attempts
  return scenes[:place], scenes[place:]


def _less(successes: int, attempts: int, others: int, of: int) -> float:
  """The chance to see so few successes if both had the same rate (Fisher's test)."""
  table = [[successes, attempts - successes], [others, of - others]]
  return float(stats.fisher_exact(table, alternative="less")[1])


def _percent(rate: float) -> str:
  return f"{100 * rate:.0f} %"
