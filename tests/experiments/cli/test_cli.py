"""Programs end clearly, files appear whole, config mistakes are named."""

import dataclasses
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments import cli

PROGRAMS = (
  "collect", "train", "evaluate", "export_policy", "report", "demo", "gallery", "watch",
  "campaign",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
  size: int
  shape: tuple[int, ...] = (1,)

  def __post_init__(self):
    if self.size < 1:
      raise ValueError(f"size is {self.size}, expected at least 1")


def test_build_freezes_lists_and_keeps_defaults_for_none():
  assert cli.build(Settings, {"size": 2, "shape": [3, 4]}, "s").shape == (3, 4)
  assert cli.build(Settings, {"size": 2, "shape": None}, "s").shape == (1,)


@pytest.mark.parametrize(
  ("section", "words"),
  [
    ({"size": 2, "shap": (1,)}, ["config.s", "'shap'", "did you mean 'shape'"]),
    ({"size": 0}, ["config.s", "size is 0"]),
    ({}, ["config.s", "size"]),
  ],
)
def test_build_names_what_is_wrong(section, words):
  with pytest.raises(cli.UserError) as caught:
    cli.build(Settings, section, "s")
  for word in words:
    assert word in str(caught.value)


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / "a" / "file.txt"
  cli.write_atomically(path, "one")
  monkeypatch.setattr(os, "replace", _raise_disk_full)
  with pytest.raises(OSError):
    cli.write_atomically(path, "two")
  assert path.read_text() == "one"
  assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def _raise_disk_full(*_):
  raise OSError(28, "No space left on device")


def test_json_has_plain_numbers_and_null_for_nan():
  text = cli.to_json({"a": np.float32(1.5), "b": float("nan"), "c": np.arange(2)})
  assert json.loads(text) == {"a": 1.5, "b": None, "c": [0, 1]}


def test_torn_lines_are_left_out_and_named(tmp_path, caplog):
  path = tmp_path / "rows.jsonl"
  path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
  assert [row["a"] for row in cli.read_jsonl(path)] == [1, 2]
  assert "line 3 is torn" in caplog.text
  path.write_text('{"a": 1}\n{"a"\n12\n\n{"a": 3}\n')
  assert [row["a"] for row in cli.read_jsonl(path)] == [1, 3]
  assert "line 2 is torn" in caplog.text


def test_a_row_after_a_torn_one_is_not_lost(tmp_path):
  path = tmp_path / "rows.jsonl"
  log = cli.JsonLines(path)
  log.write({"a": 1})
  whole = path.read_bytes()
  for cut in range(len(whole)):
    path.write_bytes(whole + whole[:cut])
    log.write({"a": 2})
    log.write({"a": 3})
    found = [row["a"] for row in cli.read_jsonl(path)]
    # Cut just before its end a row is whole, and counts.
    assert found == [1, *([1] if cut == len(whole) - 1 else []), 2, 3]


def test_workdir_below_a_file_is_refused(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(cli.UserError, match="--workdir=.*cannot be written"):
    cli.prepare_workdir(tmp_path / "file" / "below")


@pytest.mark.parametrize(
  ("error", "expected"),
  [
    (cli.UserError("two\nlines"), "two lines"),
    (PermissionError(13, "Permission denied", "f"), "f: Permission denied"),
    (KeyError("a bug"), None),
    (ValueError("a bug"), None),
  ],
)
def test_mistakes_are_told_from_bugs(error, expected):
  line = cli.message_for_user(error)
  assert line is None if expected is None else line.startswith(expected)


def test_progress_in_a_log_file_is_whole_lines():
  stream = io.StringIO()
  with cli.progress(4, "count", "things", stream=stream) as bar:
    bar.update(4)
    bar.refresh()
  text = stream.getvalue()
  assert "\r" not in text
  assert "4/4" in text.splitlines()[-1]


def test_stopwatch_shares_lie_between_nothing_and_all():
  watch = cli.Stopwatch()
  with watch:
    sum(range(1000))
  assert 0.0 < watch.share <= 1.0


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (
      ["--config.train.lr=1"],
      ["--config.train.lr", "unknown field 'lr'", "batch_size"],
    ),
    (["--config.trian.seed=1"], ["'trian'", "did you mean 'train'"]),
    (["--config=nothing.py"], ["nothing.py", "no such file", "demo"]),
    (["--config.train.seed=many"], ["config.train.seed", "many"]),
    (["--wrokdir=x"], ["wrokdir"]),
    (["stray"], ["stray"]),
  ],
)
def test_a_wrong_command_line_gets_one_line(tmp_path, arguments, words):
  done = run("train", *arguments, folder=tmp_path)
  assert done.returncode != 0
  line = only_line(done)
  for word in words:
    assert word in line
  assert not list(tmp_path.iterdir())


def test_a_missing_dataset_gets_one_line_and_leaves_nothing(tmp_path):
  done = run(
    "train", "--data=nothing", "--held_out=nothing", "--workdir=new", folder=tmp_path
  )
  assert done.returncode == 1
  assert "--data=nothing does not exist" in only_line(done)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_explains_its_flags(tmp_path, program):
  done = run(program, "--help", folder=tmp_path)
  assert f"python -m experiments.{program}" in done.stdout
  assert "--workdir" in done.stdout or "--out" in done.stdout
  assert "Traceback" not in done.stderr


def test_a_folder_belongs_to_one_configuration(tmp_path):
  path = tmp_path / "config.json"
  identity = {"seed": 0, "cell": {"steps": (3, 10), "arm": "built_in"}}
  cli.check_same(path, identity, "a check")
  cli.check_same(path, identity, "a check")
  assert json.loads(path.read_text())["cell"]["steps"] == [3, 10]
  for other, words in (
    ({**identity, "seed": 1}, "another seed;"),
    ({**identity, "cell": {"steps": (3,), "arm": "built_in"}}, r"another cell\.steps;"),
    ({**identity, "objects": "box"}, "another objects;"),
    ({"seed": 0}, r"another cell\.steps, cell\.arm;"),
  ):
    with pytest.raises(cli.UserError, match="holds a check with " + words):
      cli.check_same(path, other, "a check")
  path.write_text('{"seed": 0')
  with pytest.raises(cli.UserError, match=r"config\.json is damaged"):
    cli.check_same(path, identity, "a check")


def test_a_program_that_made_something_ends_with_status_0():
  """`main` may return True, which sys.exit would take for status 1."""
  code = (
    "import sys; from experiments import cli\n"
    "sys.argv = ['program']; cli.run(lambda argv: True)"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=False)
  assert done.returncode == 0


_ROOT = cli.CONFIGS.parents[1]


def run(program, *arguments, folder):
  """Runs a program of experiments in `folder`, as a person would."""
  root = str(cli.CONFIGS.parents[1])
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{program}", *arguments],
    cwd=folder,
    env={**os.environ, "PYTHONPATH": root},
    capture_output=True,
    text=True,
    timeout=300,
  )


def only_line(done):
  """The one line on standard error, which says 'error: ...'."""
  lines = done.stderr.strip().splitlines()
  assert len(lines) == 1, done.stderr
  assert lines[0].startswith("error: ")
  return lines[0]


def test_rows_are_counted_and_summed_up():
  rows = [{"a": 1, "b": [0.1, None]}, {"a": 2}]
  known = cli.tally(rows)
  cli.check_tally(json.loads(json.dumps(rows)), known, "rows.jsonl", "")
  cli.check_tally(rows[:1], None, "rows of an earlier version", "")
  for found, said in (
    (rows[:1], "has 1 rows, expected 2"),
    ([*rows, rows[0]], "has 3 rows, expected 2"),
    ([rows[0], {"a": 3}], "has other rows"),
  ):
    with pytest.raises(
      cli.UserError, match=f"rows.jsonl {said}.*lost.*; make it again"
    ):
      cli.check_tally(found, known, "rows.jsonl", "make it again")


def test_a_work_folder_is_held_by_one_at_a_time(tmp_path):
  with cli.locked(tmp_path):
    with pytest.raises(cli.UserError, match=f"{tmp_path} is being written"):
      with cli.locked(tmp_path):
        pass
  with cli.locked(tmp_path):
    pass
