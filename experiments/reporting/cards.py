"""Cards of policies and datasets for the Hugging Face Hub: Markdown under YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import cli, describe
from experiments.datasets.counts import Description
from experiments.evaluation import scores
from hand_eye.deploy import policy_file

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
_LARGEST = "100K<n<1M"

_POLICY = """# {name}

A grasping policy after [Levine et al. 2016](https://arxiv.org/abs/1603.02199), trained
with hand_eye. It looks through one camera, moves the gripper, and closes it where its
network predicts a grasp.

{facts}

{success}

## Use it

```
python -m experiments.hub --pull={repo} --out=runs/pulled
python -m experiments.servo --policy=runs/pulled/{name} --workdir=runs/servo
```

It is no safety-rated function, and knows only robots and objects like those that it was
trained on.
"""

_DATASET = """{description}

## Use it

```
python -m experiments.hub --pull=datasets/{repo} --out=runs/pulled
python -m experiments.describe --data=runs/pulled/{folder}
```

`tfds.builder_from_directory("runs/pulled/{folder}")` reads it, without TensorFlow.
[describe.html](describe.html) shows the same figures with pictures.
"""


def of_policy(path: Path, repo: str, evaluation: Path | None = None) -> str:
  """The card of a policy file, from its manifest.

  Args:
    path: of the file.
    repo: `owner/name` that it will be in.
    evaluation: the work folder of an `experiments.evaluate`, whose rates it shows.

  Raises:
    PolicyFileError: the file is damaged.
    UserError: there is no evaluation in the folder.
  """
  manifest, members = policy_file.read(path, policy_file.SAME_WEIGHTS)
  success = "Success was not measured, or is not told here."
  if evaluation:
    summary = cli.read_json(evaluation / "summary.json")
    if not summary:
      raise cli.UserError(
        f"--evaluation={evaluation} has no summary.json; expected the --workdir of"
        " python -m experiments.evaluate"
      )
    success = f"## Success\n\n{scores.describe(summary)}"
  facts = cli.table(("", "of this file"), _facts(manifest, members))
  text = _POLICY.format(name=path.name, repo=repo, facts=facts, success=success)
  return _front(library_name="hand_eye", pipeline_tag="robotics") + text


def of_dataset(found: Description, repo: str) -> str:
  """The card of a dataset: what `experiments.describe` says of it."""
  attempts = found.total["attempts"]
  size = next((name for limit, name in _SIZES if attempts < limit), _LARGEST)
  text = _DATASET.format(
    description=describe.terminal(found).strip(),
    repo=repo,
    folder=f"{found.name}/{found.directory.name}",
  )
  return _front(task_categories=["robotics"], size_categories=[size]) + text


def _facts(
  manifest: Mapping[str, Any], members: Mapping[str, bytes]
) -> list[tuple[str, str]]:
  arrays = policy_file.read_arrays(members["weights.npz"])
  count = sum(one.size for name, one in arrays.items() if "batch_stats" not in name)
  network, software = manifest["network"], manifest["software"]
  rows = [
    ("network", f"{network['name']}, {count:,} parameters"),
    ("images", f"RGB, {network['frame_size']} → {network['crop_size']} pixels"),
    ("checkpoint", f"step {manifest['step']:,}"),
    ("versions", ", ".join(f"{name} {software[name]}" for name in sorted(software))),
    ("runs on", ", ".join(manifest["platforms"])),
  ]
  if limits := manifest["workspace"]:
    ends = zip("xyz", limits["low"], limits["high"], strict=False)
    ranges = (f"{axis} {low:.2f} to {high:.2f}" for axis, low, high in ends)
    rows.append(("workspace, metres", ", ".join(ranges)))
  return rows


def _front(**fields: Any) -> str:
  """The YAML that the Hub sorts by, with our tags."""
  lines = [f"{name}: {_yaml(value)}" for name, value in fields.items()]
  return "\n".join(
    ["---", *lines, "tags: [robotics, grasping, hand_eye]", "---", "", ""]
  )


def _yaml(value: str | list[str]) -> str:
  return value if isinstance(value, str) else f"[{', '.join(value)}]"
