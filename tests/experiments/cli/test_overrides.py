"""Every field of every configuration takes what a person would type."""

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import cli
from experiments.cli import overrides, settings

CONFIGS = sorted(path for path in cli.CONFIGS.glob("*.py") if path.stem != "__init__")


def leaves(section, prefix=""):
  """(name, type, value) of every field that is no section."""
  for name, value in section.items():
    if isinstance(value, ConfigDict):
      yield from leaves(value, f"{prefix}{name}.")
    else:
      yield f"{prefix}{name}", section.get_type(name), value


def typed(value, form):
  if not isinstance(value, tuple):
    return str(value).lower() if isinstance(value, bool) else str(value)
  if form == "commas" and value and not isinstance(value[0], tuple):
    return ",".join(map(str, value))
  if form == "brackets" and len(value) > 1:
    return f"[{', '.join(map(str, value))}]"
  return str(value)


def parsed(path, overrides_):
  values = flags.FlagValues()
  argv = ["program", f"--config={path}", *overrides_]
  settings.check_overrides(argv)
  overrides.register()
  config_flags.DEFINE_config_file("config", str(path), flag_values=values)
  # The parser of `config_flags` looks for overrides in the command line.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("sys.argv", argv)
    values(argv)
  return values.config


@pytest.mark.parametrize("form", ["python", "commas", "brackets"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_field_takes_its_own_value(path, form):
  known = list(leaves(cli.load_config(path)))
  given = [f"--config.{name}={typed(value, form)}" for name, _, value in known]
  assert list(leaves(parsed(path, given))) == known


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_field_refuses_nonsense_with_an_example_that_it_takes(path):
  config = cli.load_config(path)
  for name, kind, value in leaves(config):
    wrong = {int: "1.5", float: "fast", bool: "maybe", str: None, tuple: "(1, x:"}[kind]
    if kind is tuple and value and isinstance(value[0], str):
      wrong = "1,2"
    if wrong is None or kind is tuple and not value:
      continue
    if kind is not bool:  # absl itself refuses those
      with pytest.raises(cli.UserError, match=rf"--config.{name}=.*: expected a"):
        settings.check_override(config, name, wrong)
    text = overrides.example(value, kind).removeprefix("=").strip('"')
    settings.check_override(config, name, text)


@pytest.mark.parametrize(
  ("text", "found"),
  [
    ("random,servo", ("random", "servo")),
    ("servo", ("servo",)),
    ("(random, servo)", ("random", "servo")),
    ("'random', 'servo'", ("random", "servo")),
    ("camera_shift=0.15,wear=2", ("camera_shift=0.15", "wear=2")),
    ("servo?raise_ratio=0,servo@20", ("servo?raise_ratio=0", "servo@20")),
    ("folder/of:1e3,x", ("folder/of:1e3", "x")),
  ],
)
def test_policies_are_typed_as_lists(text, found):
  config = parsed(cli.DEFAULT_CONFIG, [f"--config.evaluate.policies={text}"])
  assert config.evaluate.policies == found


def test_none_where_it_is_the_default_and_nowhere_else():
  config = parsed(
    cli.DEFAULT_CONFIG,
    ["--config.train.optimizer.decay_steps=None", "--config.train.batch_size=1e2"],
  )
  assert config.train.optimizer.decay_steps is None
  assert config.train.batch_size == 100
  config = cli.load_config(cli.DEFAULT_CONFIG)
  with pytest.raises(cli.UserError, match="expected a whole number, such as .*=64"):
    settings.check_override(config, "train.batch_size", "None")
  with pytest.raises(cli.UserError, match=r"phases=\"\(\(2100, 1.0\),\)\""):
    settings.check_override(config, "train.phases", "1500,0.01")
  with pytest.raises(cli.UserError, match="a section.*optimizer.clip_norm=1.0"):
    settings.check_override(config, "train.optimizer", "adam")
