"""Shows a campaign: lines for the terminal, sections for the page."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from experiments import cli
from experiments.campaigns import alarms as alarms_lib
from experiments.campaigns import charts
from experiments.campaigns.alarms import Alarm
from experiments.campaigns.state import Rate, RoundState, State, count
from experiments.reporting import pages
from experiments.reporting.pages import Table

_POINTS = 60  # of the curve of success


def line(state: State, alarms: Sequence[Alarm]) -> str:
  """The whole campaign in one line."""
  rate, left = state.attempts_per_second(), state.seconds_left()
  parts = [
    f"{state.attempts:,} of {state.planned:,} attempts",
    f"{rate:.1f} attempts/s" if rate else "",
    _now(state),
    f"{left / 3600:.1f} h left" if left else "",
    f"{len(alarms)} alarms: {alarms[0].text}" if alarms else "",
  ]
  return ", ".join(part for part in parts if part)


def table(state: State) -> str:
  """The rounds as lines of text."""
  rows = [
    (
      f"{round_.number}",
      f"{round_.total.attempts:,}/{round_.planned:,}",
      _rate(round_.by("policy").get("random")),
      _rate(_servo(round_)),
      _training(round_),
      f"{round_.update.best:.3f}" if round_.update.best is not None else "",
      _rate(round_.evaluated),
    )
    for round_ in state.rounds
  ]
  header = ("round", "attempts", "random", "network", "update", "AUC", "evaluated")
  return cli.table(header, rows, range(len(header)))


def page(state: State, refresh: float, name: str) -> str:
  """The page, which reads itself again every `refresh` seconds; 0 for a last one."""
  values = {
    "cards": _cards(state),
    "alarms": alarms_lib.find(state),
    **report_values(state),
    "learning": _learning(state),
    "robots": _units(state),
  }
  title = f"Campaign {name}"
  return pages.html("campaign.md.j2", title, line(state, []), values, refresh)


def report_values(state: State) -> dict[str, Any]:
  """What the report shows of a campaign."""
  return {
    "success": _success(state),
    "caption": "Success while collecting. Dashed: an update of the network is done.",
    "rounds": _rounds(state),
  }


def _cards(state: State) -> list[tuple[str, str, str]]:
  left, rate = state.seconds_left(), state.attempts_per_second()
  speeds = [r.update.samples_per_second for r in state.rounds]
  speed = next((value for value in reversed(speeds) if value), 0.0)
  return [
    (f"{state.attempts:,}", "attempts", f"of {state.planned:,}"),
    (f"{rate:.1f}" if rate else "–", "attempts/s", "over the last ten minutes"),
    (f"{speed:,.0f}" if speed else "–", "samples/s", "of training"),
    (f"{left / 3600:.1f} h" if left else "–", "left", "collecting and training"),
    (f"{state.num_bytes / 1e6:,.0f} MB", "of attempts", ""),
  ]


def _success(state: State) -> Markup:
  """Success by attempts collected, each round and policy a curve."""
  lines, marks, done = [], [], 0
  for round_ in state.rounds:
    if not round_.scenes:
      continue
    for policy, colour in (("random", "b"), ("", "a")):
      scenes = [s for s in round_.scenes if (s.policy == "random") == bool(policy)]
      if not scenes:
        continue
      size = max(1, len(round_.scenes) // _POINTS * 4 or len(scenes) // 8)
      points, place = [], done
      for begin in range(0, len(scenes), size):
        part = count(scenes[begin : begin + size])
        place += part.attempts
        points.append((place, 100 * part.rate))
      done = place
      total = count(scenes)
      label = f"{'random' if policy else 'network'} {100 * total.rate:.0f} %"
      lines.append(charts.Line(points, colour, label))
    if round_.update.is_done:
      marks.append(charts.Mark(done, f"update {round_.number}"))
  return charts.chart(
    lines,
    x_label="attempts",
    y_label="success, %",
    y_range=(0, 100),
    marks=marks,
    description="Success while collecting, by attempts",
  )


def _rounds(state: State) -> Table:
  rows = []
  for round_ in state.rounds:
    versions = [v for v in round_.by("version") if v]
    rows.append(
      (
        str(round_.number),
        f"{round_.total.attempts:,} of {round_.planned:,}",
        _rate(round_.by("policy").get("random")),
        _rate(_servo(round_)),
        f"{len(versions)}" if versions else "",
        _training(round_),
        f"{round_.update.best:.3f}" if round_.update.best is not None else "",
        _rate(round_.evaluated, interval=True),
      )
    )
  header = (
    "round", "attempts", "random", "network", "networks", "update", "held-out AUC",
    "evaluated after it",
  )  # fmt: skip
  return Table(header, rows, numbers=tuple(range(1, len(header))))


def _learning(state: State) -> Markup | None:
  lines, begin = [], 0
  marks = []
  for round_ in state.rounds:
    update = round_.update
    points = [(begin + step, auc) for step, auc in update.aucs]
    colour = charts.COLOURS[round_.number % len(charts.COLOURS)]
    lines.append(charts.Line(points, colour))
    begin += update.step
    if update.is_done:
      marks.append(charts.Mark(begin, f"update {round_.number}"))
  if not any(line.points for line in lines):
    return None
  return charts.chart(
    lines,
    x_label="training steps, of all updates",
    y_label="held-out AUC",
    y_range=(0.5, 1.0),
    marks=marks,
    description="Held-out AUC by training steps",
  )


def _units(state: State) -> Table:
  begun = [round_ for round_ in state.rounds if round_.scenes]
  names = sorted({scene.unit for scene in state.scenes})
  rates = [round_.by("unit") for round_ in begun]
  last = {scene.unit: scene for scene in state.scenes}
  rows = [
    (
      name,
      *(_rate(by.get(name)) for by in rates),
      f"{last[name].brightness:.0f}",
    )
    for name in names
  ]
  header = ("robot", *(f"round {r.number}" for r in begun), "brightness")
  return Table(
    header,
    rows,
    numbers=tuple(range(1, len(header))),
    caption="Success by robot; mean brightness of its last image, of 255",
  )


def _servo(round_: RoundState) -> Rate:
  return count([scene for scene in round_.scenes if scene.policy != "random"])


def _rate(rate: Rate | None, *, interval: bool = False) -> str:
  if rate is None or not rate.attempts:
    return ""
  words = f"{100 * rate.rate:.1f} % of {rate.attempts:,}"
  low, high = rate.interval
  between = f"95 % over attempts: {100 * low:.0f} to {100 * high:.0f}"
  return f"{words} ({between})" if interval else words


def _training(round_: RoundState) -> str:
  update = round_.update
  if update.is_done:
    return f"{update.steps:,} steps"
  return f"{update.step:,} of {update.steps:,} steps" if update.step else ""


def _now(state: State) -> str:
  """What is under way."""
  for round_ in state.rounds:
    if not round_.is_collected and round_.scenes:
      words = f"collecting round {round_.number}"
      servo = _servo(round_)
      if servo.attempts:
        words += f" (network succeeds in {100 * servo.rate:.0f} %)"
      return words
    if round_.update.step and not round_.update.is_done:
      return f"training update {round_.number}, step {round_.update.step:,}"
  return ""
