"""The house keeps its shape: who imports whom, and what no file may name."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hand_eye", "envs", "data_pipeline", "experiments")

_SIMULATOR = {"mujoco", "mjx", "gymnasium"}
_FILES = {"tensorflow_datasets", "array_record", "grain"}
_JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}

FORBIDDEN = {
  "hand_eye": {"envs", "data_pipeline", "experiments"} | _SIMULATOR | _FILES,
  "envs": {"hand_eye", "data_pipeline", "experiments"} | _FILES | _JAX,
  "data_pipeline": {"hand_eye", "envs", "experiments"} | _SIMULATOR | _JAX,
  "experiments": set(),
}
# TensorFlow is never needed, and its import alone takes seconds.
NOWHERE = {"tensorflow", "clu"}
FLAX_FILES = ("hand_eye/network.py", "hand_eye/glimpse.py")

# Written in pieces, so that this file does not name what it forbids.
_PLACES = re.compile(
  r"(?<![\w.$}])/(?:" + "|".join(("home", "root", "work", "Users", "opt")) + r")/\w"
  r"|" + r"pypi" + r"\.org|python" + r"hosted|extra-index" + r"-url|--index" + r"-url"
)
_TEXT = {".py", ".md", ".toml", ".txt", ".cfg", ".yaml", ".yml", ".json", ".sh", ""}
_GENERATED = {"runs", "build", "dist"}


def imports(source: str) -> Iterator[str]:
  """Names of all modules that a file imports, anywhere in it."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and _is_import_call(node.func):
      if node.args and isinstance(node.args[0], ast.Constant):
        yield str(node.args[0].value)


def _is_import_call(function: ast.expr) -> bool:
  name = getattr(function, "id", getattr(function, "attr", ""))
  return name in ("__import__", "import_module")


def violations(path: str, source: str) -> list[str]:
  """What a file of a package imports although it must not."""
  package = path.split("/")[0]
  forbidden = FORBIDDEN[package] | NOWHERE
  tops = {name.split(".")[0] for name in imports(source)}
  found = sorted(tops & forbidden)
  if "flax" in tops and path not in FLAX_FILES:
    found.append("flax")
  return sorted(set(found))


# What a control process needs of the method; files that write policies need more.
CONTROL = {
  "constraints", "decision", "deploy", "observations", "platforms", "presets",
}  # fmt: skip
WRITERS = {"export", "onnx_graph", "onnx_operations", "onnx_policy"}


def beyond_control(source: str) -> list[str]:
  """What a file imports of `hand_eye` that no control process has, and libraries."""
  found = set()
  for name in imports(source):
    top, _, rest = name.partition(".")
    module = rest.split(".")[0]
    if top == "hand_eye" and module and module not in CONTROL:
      found.add(name)
    if "hand_eye.deploy." in name and name.split(".")[2] in WRITERS:
      found.add(name)
    if top in _JAX - {"jax"}:
      found.add(name)
  return sorted(found)


def named_places(text: str) -> list[str]:
  """Machine paths and registry addresses in a text."""
  return [match.group() for match in _PLACES.finditer(text)]


def python_files() -> list[str]:
  return sorted(
    str(path.relative_to(ROOT))
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
  )


def text_files() -> list[str]:
  return sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.rglob("*")
    if path.is_file()
    and path.suffix in _TEXT
    and path.name != "LICENSE"
    and not _is_generated(path.relative_to(ROOT))
  )


def _is_generated(path: Path) -> bool:
  first = path.parts[0]
  hidden = first.startswith(".") and first not in (".ci", ".gitignore")
  return (
    hidden
    or first in _GENERATED
    or "__pycache__" in path.parts
    or any(part.endswith(".egg-info") for part in path.parts)
  )


@pytest.mark.parametrize("path", python_files())
def test_imports_point_the_way_the_design_says(path):
  found = violations(path, (ROOT / path).read_text(encoding="utf-8"))
  assert not found, f"{path} must not import {', '.join(found)}"


@pytest.mark.parametrize(
  "path", sorted(p.name for p in (ROOT / "hand_eye" / "deploy").glob("*.py"))
)
def test_deploy_imports_what_a_control_process_has(path):
  if Path(path).stem not in WRITERS:
    source = (ROOT / "hand_eye" / "deploy" / path).read_text(encoding="utf-8")
    assert not beyond_control(source)


@pytest.mark.parametrize(
  ("source", "expected"),
  [
    ("from hand_eye import servo", ["hand_eye.servo"]),
    ("from hand_eye.deploy import export", ["hand_eye.deploy.export"]),
    ("import jax, flax", ["flax"]),
    ("from hand_eye import decision\nfrom hand_eye.deploy import wire", []),
  ],
)
def test_an_import_that_no_control_process_has_is_caught(source, expected):
  assert beyond_control(source) == expected


@pytest.mark.parametrize("path", text_files())
def test_no_file_names_a_machine_or_a_registry(path):
  found = named_places((ROOT / path).read_text(encoding="utf-8"))
  assert not found, f"{path} names {found}"


@pytest.mark.parametrize(
  "path",
  sorted(
    p.name for p in (ROOT / "experiments/configs").glob("*.py") if p.stem != "__init__"
  ),
)
def test_every_config_loads_and_is_a_lab_note(path):
  file = ROOT / "experiments" / "configs" / path
  spec = importlib.util.spec_from_file_location(file.stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  for section in ("network", "collect", "train", "servo", "evaluate", "sweep"):
    assert section in config, f"{path} has no section {section}"
  for fact in ("python -m experiments.", "Hardware:"):
    assert fact in module.__doc__, f"the lab note of {path} lacks {fact!r}"


def test_every_folder_of_code_is_a_package_and_so_installed():
  for path in map(Path, python_files()):
    assert (ROOT / path).with_name("__init__.py").exists(), path


def test_an_installation_without_extras_has_what_a_control_process_needs():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
  names = {re.match(r"[\w-]+", each)[0] for each in project["project"]["dependencies"]}
  assert names == {"flatbuffers", "jax", "numpy"}


def test_without_the_rest_programs_say_what_to_install():
  program = "import sys; sys.path.insert(0, sys.argv[1]); import experiments"
  done = subprocess.run(
    [sys.executable, "-I", "-S", "-c", program, str(ROOT)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1 and "pip install 'hand_eye[train]'" in done.stderr
  assert len(done.stderr.splitlines()) == 1


def test_every_dependency_is_pinned():
  lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
  pins = [line for line in lines if line and not line.startswith("#")]
  assert pins
  for line in pins:
    assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.+!]+", line), line


@pytest.mark.parametrize(
  ("path", "source", "expected"),
  [
    ("hand_eye/cem.py", "import mujoco", ["mujoco"]),
    ("hand_eye/cem.py", "if 1:\n  import data_pipeline.plan", ["data_pipeline"]),
    ("hand_eye/servo.py", "from flax import linen", ["flax"]),
    ("hand_eye/network.py", "from flax import linen", []),
    ("envs/units.py", "import jax.numpy as jnp", ["jax"]),
    ("envs/units.py", "import importlib\nimportlib.import_module('optax')", ["optax"]),
    ("data_pipeline/loader.py", "import grain\nimport numpy", []),
    ("data_pipeline/loader.py", "from envs.rollout import Attempt", ["envs"]),
    ("experiments/train.py", "import tensorflow as tf", ["tensorflow"]),
    ("experiments/train.py", "import tensorflow_datasets, jax, mujoco", []),
  ],
)  # fmt: skip
def test_a_planted_import_is_caught(path, source, expected):
  assert violations(path, source) == expected


@pytest.mark.parametrize("text", ["/ho" + "me/me/data", "https://py" + "pi.org/simple"])
def test_a_planted_place_is_caught(text):
  assert named_places(f"see {text} for more")


def test_ordinary_text_names_no_place():
  assert not named_places("data/home/run, ./work/x, --workdir=/path/to/runs, a/root/b")


@pytest.mark.parametrize("page", ["README.md", "WORKSPACE.md"])
def test_pages_link_to_what_is_there_and_have_no_gaps(page):
  text = (ROOT / page).read_text(encoding="utf-8")
  for target in re.findall(r"\]\(([^)#]+)\)", text):
    assert (ROOT / target).exists(), f"{page} links to {target}"
  gaps = set(re.findall(r"\b[A-Z]{3,}_[A-Z]{3,}\b", text)) - {
    "HELD_OUT",
    "SCHEMA_VERSION",
  }
  assert not gaps


def named_paths(text: str) -> list[str]:
  """Paths from the project's root that a page names in backticks or bold."""
  marked = re.findall(r"`([^`\s]+)`|\*\*([^*\s]+/)\*\*", text)
  tops = (*PACKAGES, "tests", "docs")
  return [
    path
    for path in (code or bold for code, bold in marked)
    if path.endswith((".py", ".md")) or path.split("/")[0] in tops and "/" in path
  ]


def test_every_path_on_the_map_exists():
  paths = named_paths((ROOT / "WORKSPACE.md").read_text(encoding="utf-8"))
  missing = [path for path in paths if not (ROOT / path).exists()]
  assert len(paths) > 20 and not missing


def test_the_map_shows_every_room():
  text = (ROOT / "WORKSPACE.md").read_text(encoding="utf-8")
  for package in PACKAGES:
    for init in (ROOT / package).rglob("__init__.py"):
      room = f"{init.parent.relative_to(ROOT)}/"
      assert room in named_paths(text), f"WORKSPACE.md does not show {room}"


def test_a_path_that_is_not_there_is_caught():
  assert named_paths("see `envs/no.py`, **gone/**, `a.b`, `gone.py`, `x/y`") == [
    "envs/no.py",
    "gone.py",
  ]


def test_the_top_of_experiments_holds_programs_and_statistics():
  for path in (ROOT / "experiments").glob("*.py"):
    if path.name not in ("__init__.py", "statistics.py"):
      assert 'if __name__ == "__main__":' in path.read_text(encoding="utf-8"), path.name


def test_no_file_of_experiments_hides_behind_an_underscore():
  hidden = [path for path in python_files() if "/_" in path.replace("/__init__", "")]
  assert not hidden
