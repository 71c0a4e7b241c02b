"""What the report shows: the values of templates/report.md.j2."""

from collections.abc import Mapping
from typing import Any

from experiments import cli
from experiments.evaluation import policy_names
from experiments.reporting import breakdown, tables, words
from experiments.reporting import evaluated as evaluated_lib
from experiments.reporting import names as names_lib
from experiments.reporting.evaluated import Evaluated, Evaluation, Sweep, Video
from experiments.reporting.pages import Table
from experiments.reporting.results import Results

# m, between the pads of an open gripper, see `envs.gripper.opening`.
_HALF_OPENING = 0.045
# More than this is left out of the page and named, so that the page still opens.
MAX_VIDEO_BYTES = 24_000_000
_DATASETS = {"train": "Training", "held_out": "Held-out"}
_HEADINGS = {
  "success": "Successes",
  "correction": "Corrections: something moved during the attempt",
  "failure": "Failures",
  "": "Other videos",
}


def values(results: Results, found: Evaluated) -> dict[str, Any]:
  """All values of the template, from results that were read already."""
  from experiments.pictures import plots

  evaluation, sweep = found.evaluation, found.sweep
  overlay, videos, left_out = found.overlay, *shown_videos(found.videos)
  specs = evaluation.specs.values() if evaluation else ()
  setups = {"evaluated": evaluation, "swept": sweep}
  return {
    "results": results,
    "evaluation": evaluation,
    "sweep": sweep,
    "cards": cards(results, evaluation),
    "findings": words.findings(results.final(), evaluation),
    **(grasping(evaluation) if evaluation else {}),
    "predictor": predictor(evaluation) if evaluation else None,
    "grasps": grasps(evaluation) if evaluation else None,
    "half_opening": _HALF_OPENING,
    **(robustness(sweep) if sweep else {}),
    "data_amount": data_amount(found),
    "overlay": overlay and plots.candidates(**_arguments(overlay)),
    "videos": videos,
    "left_out": left_out,
    "no_servo": bool(specs) and not any(spec.get("servo") for spec in specs),
    "learning": learning(results),
    "datasets": {
      name: tables.rates(
        "unit",
        [*facts.by_unit.items(), ("all units", facts.total)],
        f"{_DATASETS[name]} attempts:"
        f" {facts.total['attempts']:,}, {facts.samples:,} samples,"
        f" {facts.size_bytes / 1e6:,.1f} MB",
      )
      for name, facts in results.datasets.items()
      if not facts.problem
    },
    "policy": policy(results),
    "units_image": found.units_image,
    "took": ", ".join(f"{n} {words.duration(s)}" for n, s in results.seconds.items()),
    "setups": [(name, tables.setup(one)) for name, one in setups.items() if one],
    "versions": Table(("software", "version"), list(cli.versions().items())),
  }


def cards(
  results: Results, evaluation: Evaluation | None
) -> list[tuple[str, str, str]]:
  """(value, name, remark) of what matters most."""
  rates = evaluation.with_replacement if evaluation else {}
  made = [
    (
      words.percent(rates[name]["rate"]),
      f"success, {policy_names.label(name)}",
      words.interval(rates[name]),
    )
    for name in policy_names.of_table(rates)
  ]
  final = results.final()
  if final.get("auc") is not None:
    remark = "0.5 is chance"
    if final.get("auc_low") is not None:
      low, high = final["auc_low"], final["auc_high"]
      remark = f"95 % interval over bins: {low:.2f} to {high:.2f}"
    made.append((f"{final['auc']:.2f}", "AUC on held-out attempts", remark))
  train = results.datasets.get("train")
  if train and not train.problem:
    remark = f"{train.samples:,} samples, {len(train.by_unit)} units"
    made.append((f"{train.total['attempts']:,}", "attempts to learn from", remark))
  return made


def grasping(evaluation: Evaluation) -> dict[str, Any]:
  """How often it grasps, and what."""
  found = breakdown.by_property(evaluation.rows)
  table_1 = tables.policies_of_table_1(evaluation)
  beside = [name for name in evaluation.policies if evaluation.paired.get(name)]
  beside = beside if policy_names.ours(evaluation.policies) else []
  return {
    "table_1": lambda caption: tables.table_1(evaluation, caption),
    "absent": [name for name in table_1 if name not in evaluation.policies],
    "bins": [
      "{repetitions} bins of {num_attempts} attempts with {num_objects} objects".format(
        **evaluation.settings[name]
      )
      + f" {said}"
      for name, said in (
        (evaluated_lib.WITH, "with replacement"),
        (evaluated_lib.WITHOUT, "without"),
      )
      if evaluation.bins(name)
    ],
    "success": tables.rates(
      "policy",
      [(policy_names.label(n), r) for n, r in evaluation.with_replacement.items()],
      "Success with replacement. The units are not those that chose the checkpoint."
      " An interval over robots says what others like them would do.",
    ),
    "beside_ours": [words.beside_ours(n, evaluation.paired[n]) for n in beside],
    "detectors": tables.detectors(evaluation.detectors),
    "by_property": tables.matrix(
      "property",
      {name: found[name] for name in names_lib.PROPERTIES if name in found},
      evaluation,
      "Success, 95 % interval and attempts, by a property of the object that"
      " was nearest to the fingers when they closed; an object with two properties"
      " counts twice. Both protocols together. What a policy chose to grasp is part of"
      " its figure: the rows do not compare equal tasks.",
    ),
    "absent_properties": [name for name in names_lib.PROPERTIES if name not in found],
    "by_unit": tables.matrix(
      "unit",
      dict(sorted(breakdown.by_field(evaluation.rows, "unit").items())),
      evaluation,
      "Success by unit, none of them trained with; 95 % intervals over attempts. Both"
      " protocols together.",
    ),
    "by_family": tables.matrix(
      "nearest object",
      dict(sorted(breakdown.by_field(evaluation.rows, "target_family").items())),
      evaluation,
      "Success, 95 % interval and attempts.",
    ),
  }


def predictor(evaluation: Evaluation) -> dict[str, Any] | None:
  """What the network predicted during the evaluated attempts, and the outcomes."""
  from experiments.pictures import plots
  from experiments.reporting import evaluation_figures as figures

  rows, ours = evaluation.rows, policy_names.ours(evaluation.policies)
  if not any(row["policy"] == ours and row["p_best"] for row in rows):
    return None
  told = breakdown.closings(rows, ours)
  means = {
    (field, ended): breakdown.along(rows, ours, field, ended)
    for field in ("p_best", "p_null")
    for ended in (True, False)
  }
  titles = {
    "p_best": "Predicted success of the best motion",
    "p_null": "Predicted success of closing here",
  }
  count = len(told.label)
  bins = max(1, min(10, count // 10))
  return {
    "told": told,
    "calibration": plots.calibration(
      told.label, told.probability, num_bins=bins, name="calibration-closing"
    )
    if count
    else "",
    "along": [
      figures.along(field, title, means[field, True], means[field, False])
      for field, title in titles.items()
    ],
    "table": tables.along(means),
  }


def grasps(evaluation: Evaluation) -> dict[str, Any] | None:
  """Where the fingers were on soft and on rigid objects, as in Figure 9."""
  from experiments.reporting import evaluation_figures as figures

  ours = policy_names.ours(evaluation.policies)
  if not ours:
    return None
  found = breakdown.grasps(evaluation.rows, ours)
  kinds = (("rigid", found.rigid), ("soft", found.soft))
  is_told = len(found.soft) > 0
  return {
    "attempts": found.soft_attempts,
    "said": [words.offsets(n, v) for n, v in kinds if len(v)] if is_told else [],
    "drawing": figures.offsets(found, _HALF_OPENING) if is_told else "",
  }


def robustness(sweep: Sweep) -> dict[str, Any]:
  """Success against the amount of each condition, ours beside the baselines."""
  from experiments.reporting import evaluation_figures as figures

  protocol = breakdown.protocol_of(sweep.cells)
  usual_steps = int(sweep.settings.get("num_steps", 0))
  curves = breakdown.curves(sweep.cells, protocol, usual_steps)
  policies = [n for n in sweep.policies if not policy_names.read(n).network]
  looks = names_lib.looks(policies)
  known = [name for name in names_lib.CONDITIONS if name in curves]
  return {
    "protocol": protocol,
    "legend": [(policy_names.label(name), *looks[name]) for name in policies],
    "robustness": [
      figures.robustness(
        name, {p: points for p, points in curves[name].items() if p in looks}, looks
      )
      for name in dict.fromkeys((*known, *curves))
    ],
    "conditions": tables.conditions(sweep),
  }


def data_amount(found: Evaluated) -> dict[str, Any] | None:
  """Success against the attempts that the servo's network learned from."""
  from experiments.reporting import evaluation_figures as figures

  rates = dict(found.evaluation.with_replacement) if found.evaluation else {}
  if found.sweep:
    protocol = breakdown.protocol_of(found.sweep.cells)
    rates |= {
      cell["policy"]: cell["rate"]
      for cell in found.sweep.cells
      if cell["protocol"] == protocol and not cell["condition"]
    }
  points = breakdown.by_data(rates)
  if not points:
    return None
  table = Table(
    ("attempts learned from", "success"),
    [[f"{amount:,.0f}", tables.share(rate)] for amount, rate in points],
    (0, 1),
    "Networks of the servo that learned from so many attempts.",
  )
  return {"drawing": figures.data_amount(points), "table": table}


def learning(results: Results) -> dict[str, Any] | None:
  """The curves, and what the best weights predict of held-out attempts."""
  from experiments.pictures import plots

  if not results.metrics:
    return None
  train, held_out = results.split("train"), results.split("held_out")
  told = results.predictions
  return {
    "curves": plots.learning_curves(train, held_out, results.phase_ends),
    "said": words.learning(train, held_out)
    + ("" if results.final() else f" {words.NOT_FINISHED}"),
    "ranges": tables.ranges(results.final()),
    "calibration": plots.calibration(told["label"], told["probability"])
    if told is not None and len(told["label"])
    else "",
  }


def policy(results: Results) -> Table | None:
  """The manifest of the exported policy."""
  if results.policy_file is None:
    return None
  size = results.policy_file.stat().st_size / 1e6
  rows = tables.facts(dict(sorted(results.policy_manifest.items())))
  first = ("file", f"{results.policy_file.name}, {size:.2f} MB")
  return Table(("", ""), [first, *rows], wrap=(1,))


def shown_videos(
  videos: list[Video], max_bytes: int = MAX_VIDEO_BYTES
) -> tuple[list[tuple[str, list[Video]]], list[str]]:
  """(heading, videos) by what they show, and the files that are left out."""
  by_kind = {kind: [v for v in videos if v.kind == kind] for kind in _HEADINGS}
  # One of each kind after the other, so that none is left out for another's sake.
  turns = [
    one[turn]
    for turn in range(max(map(len, by_kind.values())))
    for one in by_kind.values()
    if turn < len(one)
  ]
  shown, left_out, size = set(), [], 0
  for video in turns:
    more = video.path.stat().st_size
    if size + more > max_bytes:
      left_out.append(video.path.name)
    else:
      size += more
      shown.add(video.path)
  found = [
    (heading, [v for v in by_kind[kind] if v.path in shown])
    for kind, heading in _HEADINGS.items()
  ]
  return [(heading, films) for heading, films in found if films], left_out


def _arguments(overlay: Mapping[str, Any]) -> dict[str, Any]:
  names = ("pregrasp_image", "image", "pixels", "probabilities", "start", "chosen")
  return {name: overlay[name] for name in names if name in overlay}
