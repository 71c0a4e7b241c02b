"""A run that fits a time, with programs and a clock of the test's own."""

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cli
from experiments.timing import budget, child, needs, program, stages
from experiments.timing.machine import Machine

CPU = Machine(2, 8 * 2**30, "some CPU", "cpu", 1, "cpu", 0, "egl", "llvmpipe")
GPU = dataclasses.replace(
  CPU, cores=16, platform="gpu", device="H200", device_memory=100 * 2**30
)


class World:
  """Programs that write what the real ones do, and take the seconds of a table.

  Attributes:
    now: the clock.
    commands: that were run, each with its limit, by stage.
  """

  def __init__(self, workdir: Path, **takes: float):
    self.now, self.workdir, self.commands = 0.0, workdir, {}
    self.takes, self.broken, self.environments = takes, set(), []

  def clock(self) -> float:
    return self.now

  def execute(self, command, seconds, environment, tell) -> child.Outcome:
    name = self._name(command)
    self.commands[name] = (command, seconds)
    self.environments.append(environment)
    takes = self.takes.get(name, 5.0)
    self.now += takes if takes <= seconds else seconds + child.GRACE
    if name in self.broken:
      return child.Outcome("failed", takes, last=("error: it broke",))
    if takes > seconds:
      return child.Outcome("cut", seconds)
    tell("as it goes")
    getattr(self, name, lambda command: None)(command)
    return child.Outcome("done", takes, f"the table of {name}")

  def flag(self, name: str, flag: str) -> str:
    command, _ = self.commands[name]
    (found,) = [one for one in command if one.startswith(f"--{flag}=")]
    return found.partition("=")[2]

  def held_out(self, command):
    self._shards("held_out", attempts=8, seconds=4.0)

  def collect(self, command):
    self._shards("train", attempts=80, seconds=40.0)

  def first_steps(self, command):
    self._metrics("first_steps", 24)

  def train(self, command):
    self._metrics("train", 100)
    (self.workdir / "train" / "checkpoints" / "100").mkdir(parents=True)

  def export(self, command):
    (self.workdir / "policy.hep").write_bytes(b"weights")

  def _shards(self, name, **row):
    more = {"shard": 0, "successes": row["attempts"] // 4}
    log = cli.JsonLines(self.workdir / "data" / name / "collection.jsonl")
    log.write({**more, **row})

  def _metrics(self, name, steps):
    log = cli.JsonLines(self.workdir / name / "metrics.jsonl")
    for step, rate in ((4, 10.0), (8, 640.0), (steps, 640.0)):
      row = {"samples_per_second": rate, "wait_share": 0.01}
      log.write({"step": step, "split": "train", **row})
    log.write({"step": steps, "split": "held_out", "samples": 320, "final": True})
    cli.write_json(self.workdir / name / "config.json", {"train": {"batch_size": 64}})

  @staticmethod
  def _name(command):
    where = [c.partition("=")[2] for c in command if c.startswith(("--work", "--name"))]
    last = Path(where[-1]).name if where else ""
    module = command[0].rpartition(".")[2]
    known = {"held_out": "held_out", "export_policy": "export"}  # else the module's
    return (
      known.get(last)
      or known.get(module)
      or (last if module == "train" and "benchmarks" not in command[0] else module)
    )


def make(world, *, machine=CPU, seconds=300.0, config="demo", begin=0.0):
  return program.Run(
    cli.load_config(cli.CONFIGS / f"{config}.py"),
    (f"--config={config}.py",),
    "",
    world.workdir,
    machine,
    cli.prepare_workdir(world.workdir / "results"),
    seconds,
    begin,
    execute=world.execute,
    can_render=lambda backend, seconds: (backend == "osmesa", ""),
    clock=world.clock,
    tell=lambda line: None,
  )


def test_every_stage_runs_and_what_is_small_comes_home(tmp_path):
  world = World(tmp_path)
  found = make(world).run()
  assert list(world.commands) == list(stages.STAGES)
  assert world.now < 300 and not found["not_done"]
  home = tmp_path / "results"
  assert (home / "policy.hep").read_bytes() == b"weights"
  assert json.loads((home / "results.json").read_text()) == json.loads(
    cli.to_json(found)
  ) | {"too_large": []}
  page = (home / "results.md").read_text()
  assert "the table of evaluate" in page and "2 cores of some CPU" in page
  assert found["figures"]["collect_train"]["attempts_per_second"] == pytest.approx(4.0)
  # The first row took 4 * 64 / 10 s, of which four steps are 0.4 s.
  assert found["figures"]["first_steps"]["compile_seconds"] == pytest.approx(25.2)


@pytest.mark.parametrize("slow", [*stages.STAGES, "all"])
def test_the_deadline_holds_whatever_takes_too_long(tmp_path, slow):
  names = stages.STAGES if slow == "all" else [slow]
  world = World(tmp_path, **dict.fromkeys(names, 1000.0))
  found = make(world).run()
  assert world.now <= 300.0
  for name in names:
    assert found["stages"][name]["status"] != "done"
    assert any(line.startswith(f"{name}: ") for line in found["not_done"])
  if slow not in ("report", "all"):
    assert found["stages"]["report"]["status"] == "done"


def test_sizes_follow_from_what_was_measured(tmp_path):
  world = World(tmp_path, held_out=9.0, first_steps=20.0)
  make(world).run()
  # Two cores, half a second an attempt, 7 of 9 s without any; 1.2 times what fits.
  _, limit = world.commands["collect"]
  useful = stages.CAREFUL * limit - 7.0
  assert float(world.flag("collect", "seconds")) == pytest.approx(useful, abs=0.1)
  attempts = int(world.flag("collect", "config.collect.num_attempts"))
  assert attempts == pytest.approx(1.2 * useful * 2 / 0.5, abs=1)
  # Ten steps a second; 20 s less 2.4 for what is not steps; three evaluations.
  _, limit = world.commands["train"]
  ((steps, _),) = eval(world.flag("train", "config.train.phases"))
  fitting = stages.CAREFUL * limit - 17.6 - 3 * 320 / (2 * 640)
  assert steps == pytest.approx(10 * fitting, abs=1)
  assert world.flag("train", "config.train.optimizer.decay_steps") == str(steps)


def test_an_interrupted_run_goes_on_with_what_is_missing_in_what_is_left(tmp_path):
  world = World(tmp_path)
  inner = world.execute

  def interrupted(command, *arguments):
    if world._name(command) == "train":
      raise KeyboardInterrupt
    return inner(command, *arguments)

  run = make(world)
  run.execute = interrupted
  with pytest.raises(KeyboardInterrupt):
    run.run()
  written = json.loads((tmp_path / "results" / "results.json").read_text())
  begun = written["stages"]["train"]["command"]
  assert written["stages"]["train"]["status"] == "running"
  world.commands.clear()
  world.now = 1000.0
  found = make(world, begin=1000.0).run()
  assert list(world.commands) == list(stages.STAGES)[3:]
  assert shlex.join(world.commands["train"][0]) == begun
  assert found["spent"] == pytest.approx(written["spent"] + world.now - 1000.0)
  with pytest.raises(cli.UserError, match="holds all results"):
    make(world)
  with pytest.raises(cli.UserError, match="holds a timed run with another config"):
    make(world, config="levine2016")


def test_without_time_or_weights_it_says_so(tmp_path):
  world = World(tmp_path)
  world.broken = {"first_steps"}
  found = make(world).run()
  assert "first_steps: failed: it broke" in found["not_done"]
  assert any(line.startswith("train: left out: ") for line in found["not_done"])
  assert "export: left out: there are no weights" in found["not_done"]
  assert world.flag("evaluate", "policies") == "random,hand_designed_noisy"
  with pytest.raises(cli.UserError, match="give more"):
    make(world, seconds=30.0)


def test_where_egl_hangs_osmesa_draws(tmp_path):
  world = World(tmp_path, held_out=1000.0)
  make(world).run()
  first, *others = [each["MUJOCO_GL"] for each in world.environments]
  assert first == "egl" and set(others) == {"osmesa"}


def test_an_accelerator_is_used(tmp_path):
  world = World(tmp_path)
  make(world, machine=GPU, config="levine2016").run()
  dtype = "config.network.dtype"
  for name in ("first_steps", "train", "export", "evaluate"):
    assert world.flag(name, dtype) == "bfloat16"
  assert world.flag("train", "loader_workers") == "15"
  assert world.flag("training", "presets") == "levine2016"
  assert world.flag("training", "dtypes") == "bfloat16"
  assert world.flag("evaluate", "config.evaluate.num_workers") == "16"
  phases = eval(world.flag("train", "config.train.phases"))
  assert [longest for _, longest in phases] == [0.01, 0.13, 1.0]
  assert world.environments[-3]["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_shares_that_are_not_used_go_to_later_stages():
  now = [0.0]
  made = budget.Budget(
    100.0, {"a": 1.0, "b": 1.0, "c": 2.0}, begin=0.0, clock=lambda: now[0]
  )
  assert made.limit("a") == 25.0
  now[0] = 10.0
  assert made.limit("b") == 30.0
  now[0] = 60.0
  assert made.limit("c") == 40.0
  now[0] = 101.0
  assert made.limit("c") == 0.0


def test_a_program_is_told_to_end_and_its_children_with_it():
  """An hour's sleep, which would outlast the test, in a child of the program."""
  lines = []
  outcome = child.run(
    ["timeit", "-n1", "-r1", "print('there')"], 60.0, {}, lines.append
  )
  assert outcome.status == "done" and "there" in lines and "there" in outcome.output
  code = "import subprocess; subprocess.run(['sleep', '3600'])"
  outcome = child.run(["timeit", "-n1", "-r1", code], 0.5, {}, lines.append)
  assert outcome.status == "cut"
  outcome = child.run(["no_such_module"], 60.0, {}, lines.append)
  assert outcome.status == "failed" and "no_such_module" in outcome.last[-1]


def test_missing_packages_are_named_in_one_line(tmp_path):
  project = tmp_path / "pyproject.toml"
  project.write_text(
    '[project]\ndependencies = ["numpy>=1"]\n[project.optional-dependencies]\n'
    'train = ["no-such-package>=2,<3", "flax"]\n'
  )
  assert needs.missing(project) == ["no-such-package"]
  with pytest.raises(SystemExit, match="lacks no-such-package: pip .*docs/timed.md"):
    needs.check(project)
  assert needs.missing() == []


def test_without_any_library_the_program_ends_with_one_line():
  root = str(Path(needs.__file__).parents[2])
  done = subprocess.run(
    [sys.executable, "-S", "-m", "experiments.timed", "--seconds=60"],
    cwd=root, env={"PYTHONPATH": root}, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 1 and done.stderr.count("\n") == 1
  assert "docs/timed.md says what to bring" in done.stderr
