"""What the report says of a sweep: robustness, steps, and amounts of data."""

from collections.abc import Mapping

from experiments.evaluation import policy_names
from experiments.reporting import blocks
from experiments.reporting import breakdown as breakdown_lib
from experiments.reporting import commands as commands_lib
from experiments.reporting import names as names_lib
from experiments.reporting.evaluated import Evaluated, Sweep
from experiments.reporting.evaluation_sections import FEW_BINS, success


def robustness(found: Evaluated) -> blocks.Section:
  """Success against the amount of each condition, ours beside the baselines."""
  heading = "When the robot is not as it was"
  sweep, parts = found.sweep, _data_amounts(found)
  command = commands_lib.sweep(found.workdir, sweep)
  if sweep is None or not sweep.conditions:
    return blocks.Section(heading, [blocks.Missing("Sweep", command), *parts])
  protocol = breakdown_lib.protocol_of(sweep.cells)
  usual_steps = int(sweep.settings.get("num_steps", 0))
  curves = breakdown_lib.curves(sweep.cells, protocol, usual_steps)
  policies = [name for name in sweep.policies if not policy_names.read(name).network]
  looks = names_lib.looks(policies)
  bins = int(sweep.settings.get(protocol, {}).get("repetitions", 0))
  too_few = ", which are so few that they are too narrow" if bins < FEW_BINS else ""
  parts = [
    blocks.Text(
      f"Success {protocol.replace('_', ' ')} after something was changed, in the same"
      f" {bins} bins each time. Policies that are told the camera's pose know where it"
      " was before it was moved; the servo is told nothing. The point that changes"
      " nothing is the sweep without conditions. Bands: 95 %, from redrawing the"
      f" bins{too_few}."
    ),
    blocks.Legend([(policy_names.label(name), *looks[name]) for name in policies]),
    _curves(curves, looks),
    blocks.Details("The figures of these curves", [_conditions(sweep)]),
    *parts,
  ]
  return blocks.Section(heading, parts)


def _curves(
  curves: Mapping[str, breakdown_lib.Curve], looks: Mapping[str, names_lib.Look]
) -> blocks.Columns:
  from experiments.reporting import evaluation_figures

  known = [name for name in names_lib.CONDITIONS if name in curves]
  others = [name for name in curves if name not in known]
  return blocks.Columns(
    [
      blocks.Picture(
        evaluation_figures.robustness(
          name, {p: points for p, points in curves[name].items() if p in looks}, looks
        ),
        "",
      )
      for name in (*known, *others)
    ],
    narrow=True,
  )


def _conditions(sweep: Sweep) -> blocks.Table:
  """Every cell of the sweep."""
  rows: list[list[blocks.Cell]] = []
  for protocol in dict.fromkeys(cell.protocol for cell in sweep.cells):
    own = [cell for cell in sweep.cells if cell.protocol == protocol]
    rates = {(cell.condition, cell.policy): cell.rate for cell in own}
    for cell in {cell.condition: cell for cell in own}.values():
      label = "nothing changed"
      if cell.name:
        amount = names_lib.amount(cell.name, cell.amount)
        label = f"{names_lib.condition(cell.name).label}: {amount}"
      rows.append(
        [
          blocks.Stacked(label, (protocol.replace("_", " "),)),
          *(success(rates.get((cell.condition, name))) for name in sweep.policies),
        ]
      )
  header = ("success", *map(policy_names.label, sweep.policies))
  return blocks.Table(header, rows, numbers=range(1, len(header)))


def _data_amounts(found: Evaluated) -> list[blocks.Block]:
  """Success against the attempts that the servo's network learned from."""
  from experiments.reporting import evaluation_figures

  rates = dict(found.evaluation.with_replacement) if found.evaluation else {}
  if found.sweep:
    protocol = breakdown_lib.protocol_of(found.sweep.cells)
    rates |= {
      cell.policy: cell.rate
      for cell in found.sweep.cells
      if cell.protocol == protocol and not cell.condition
    }
  points = breakdown_lib.by_data(rates)
  if not points:
    return []
  rows = [[f"{amount:,.0f}", success(rate)] for amount, rate in points]
  return [
    blocks.Heading("With more and less data"),
    blocks.Columns(
      [
        blocks.Picture(evaluation_figures.data_amount(points), ""),
        blocks.Table(
          ("attempts learned from", "success"),
          rows,
          numbers=(0, 1),
          caption="Networks of the servo that learned from so many attempts.",
        ),
      ],
      narrow=True,
    ),
  ]
