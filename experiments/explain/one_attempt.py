"""Explains one attempt: repeats it and writes its page.

`watch --explain` is the program.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.attempt import Attempt
from experiments import cli, evaluate
from experiments.evaluation import conditions, policies, replay, trials
from experiments.explain import attempt_page, evidence

Row = Mapping[str, Any]


def explain(
  wanted: evidence.Wanted, workdir: str | Path, row: Row | None = None
) -> tuple[Path, Attempt, str]:
  """Writes explain-<policy>-<unit>-scene-<seed>-attempt-<k>.html.

  Args:
    wanted: the attempt.
    row: of an evaluation, with which it is compared.

  Returns:
    The path, the attempt, and what the comparison says, '' without a row.

  Raises:
    UserError: the folder cannot be used, or the bin was empty before that attempt.
  """
  workdir = cli.prepare_workdir(workdir)
  explained = evidence.make_again(wanted)
  if explained is None:
    raise cli.UserError(
      f"--attempt={wanted.number}: the bin was empty before that attempt"
    )
  attempt, remark = explained.attempt, ""
  if row is not None:
    others = replay.differences(row, wanted.trial, wanted.repetition, attempt)
    remark = "This is the attempt of the row: they agree in every figure."
    if others:
      remark = f"This is not the attempt of the row: {', '.join(others)} differ."
  path = workdir / attempt_page.name_of(wanted.trial, attempt)
  page = attempt_page.page(explained, wanted.trial, wanted.repetition, remark=remark)
  cli.write_atomically(path, page)
  return path, attempt, remark


def find(
  folder: str | Path,
  number: int,
  config: Mapping[str, Any],
  networks: policies.Networks,
) -> tuple[trials.Trial, Row]:
  """The trial of a row, and the row.

  Args:
    folder: work folder of experiments.evaluate or experiments.sweep.
    number: of the row in rows.jsonl, from 0.
    config: its section `network` says which network the policy has; all else is
      written in the folder.
    networks: where a learned policy finds its own.

  Raises:
    UserError: there is no such row, or what it needs is not what it was.
    CheckpointError: the network cannot be read.
  """
  path = cli.require_folder(folder, "evaluation", "python -m experiments.evaluate")
  rows = cli.read_jsonl(path / "rows.jsonl")
  if not 0 <= number < len(rows):
    raise cli.UserError(
      f"--row={number}: {path / 'rows.jsonl'} has {len(rows)} rows, numbered from 0"
    )
  row = rows[number]
  recorded = _read(path / "config.json")
  settings = evaluate.build_config(
    {
      **recorded["evaluate"],
      "policies": (row["policy"],),
      "num_workers": 1,
      "num_videos": 0,
      "video_size": 64,
    }
  )
  servo = recorded["policies"][row["policy"]]["servo"]
  sections = {
    "network": config["network"],
    # JSON knows no tuples; infinite ones are null there, but part of the variant.
    "servo": {k: tuple(v) if isinstance(v, list) else v for k, v in servo.items()},
  }
  spec = policies.choose(row["policy"], sections, networks)
  frame_size = recorded["cell"]["frame_size"]
  now = json.loads(cli.to_json(evaluate.identity(settings, [spec], frame_size)))
  for what, here, there in (
    ("network", now["policies"][spec.name]["version"], row["policy_version"]),
    *(
      (name.replace("_", " "), now["cell"][name], recorded["cell"][name])
      for name in now["cell"]
    ),
  ):
    if here != there:
      raise cli.UserError(
        f"--row={number} was made with another {what}: {there}, but here is {here}"
      )
  condition = conditions.parse(row["condition"])
  for trial in evaluate.plan(settings, [spec], condition, frame_size):
    if trial.key == row["trial"]:
      return trial, row
  raise cli.UserError(
    f"--row={number}: {path / 'config.json'} plans no trial {row['trial']!r}"
  )


def _read(path: Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise cli.UserError(
      f"{path} is missing; expected what python -m experiments.evaluate wrote"
    ) from error
  except ValueError as error:
    raise cli.UserError(f"{path} is damaged ({error})") from error
  return content
