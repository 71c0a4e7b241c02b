"""What a campaign looks like: lines for the terminal, sections for the page."""

from collections.abc import Sequence

from experiments.campaigns import alarms as alarms_lib
from experiments.campaigns import charts
from experiments.campaigns.alarms import Alarm
from experiments.campaigns.state import RoundState, State, count
from experiments.reporting import blocks, html, render
from experiments.reporting.results import Rate

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
  widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
  return "\n".join(
    "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    for row in [header, *rows]
  )


def page(state: State, refresh: float, name: str) -> str:
  """The page, which reads itself again every `refresh` seconds; 0 for a last one."""
  alarms = alarms_lib.find(state)
  body = [render.html_section(section) for section in sections(state, alarms)]
  return html.page(f"Campaign {name}", line(state, []), body, refresh=refresh)


def sections(state: State, alarms: Sequence[Alarm]) -> list[blocks.Section]:
  """What the page holds."""
  return [
    blocks.Section("", [_cards(state), *_alarms(alarms)]),
    blocks.Section("Success while collecting", [_success(state), _rounds(state)]),
    blocks.Section("What the network learns", [_learning(state)]),
    blocks.Section("Robots", [_units(state)]),
  ]


def campaign_section(state: State) -> blocks.Section:
  """The campaign as a section of the report."""
  return blocks.Section("Round by round", [_success(state), _rounds(state)])


def _cards(state: State) -> blocks.Facts:
  left, rate = state.seconds_left(), state.attempts_per_second()
  speeds = [r.update.samples_per_second for r in state.rounds]
  speed = next((value for value in reversed(speeds) if value), 0.0)
  return blocks.Facts(
    [
      (f"{state.attempts:,}", "attempts", f"of {state.planned:,}"),
      (f"{rate:.1f}" if rate else "–", "attempts/s", "over the last ten minutes"),
      (f"{speed:,.0f}" if speed else "–", "samples/s", "of training"),
      (f"{left / 3600:.1f} h" if left else "–", "left", "collecting and training"),
      (f"{state.num_bytes / 1e6:,.0f} MB", "of attempts", ""),
    ]
  )


def _alarms(alarms: Sequence[Alarm]) -> list[blocks.Block]:
  if not alarms:
    return [blocks.Text("No alarms.", "soft")]
  return [blocks.Bullets([f"Alarm: {a.text}." for a in alarms], highlighted=True)]


def _success(state: State) -> blocks.Picture:
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
  drawn = charts.chart(
    lines,
    x_label="attempts",
    y_label="success, %",
    y_range=(0, 100),
    marks=marks,
    description="Success while collecting, by attempts",
  )
  return blocks.Picture(
    drawn, "Success while collecting. Dashed: an update of the network is done."
  )


def _rounds(state: State) -> blocks.Table:
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
  return blocks.Table(header, rows, numbers=tuple(range(1, len(header))))


def _learning(state: State) -> blocks.Block:
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
    return blocks.Text("No update has been evaluated yet.", "soft")
  drawn = charts.chart(
    lines,
    x_label="training steps, of all updates",
    y_label="held-out AUC",
    y_range=(0.5, 1.0),
    marks=marks,
    description="Held-out AUC by training steps",
  )
  return blocks.Picture(drawn, "AUC on held-out attempts. Dashed: an update is done.")


def _units(state: State) -> blocks.Table:
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
  return blocks.Table(
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
  return f"{words} ({100 * low:.0f} to {100 * high:.0f})" if interval else words


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
