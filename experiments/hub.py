r"""Shares policies and datasets on the Hugging Face Hub, and fetches them.

  python -m experiments.hub --push=runs/demo/policy.hep --repo=me/grasping \
    --evaluation=runs/demo/evaluate
  python -m experiments.hub --push=runs/demo/data/round_00 --repo=me/grasps --private
  python -m experiments.hub --pull=me/grasping --out=runs/pulled
  python -m experiments.hub --pull=datasets/me/grasps --out=runs/pulled

Needs huggingface_hub (pip install 'hand_eye[hub]') and, to push, `hf auth login` or
HF_TOKEN. HF_ENDPOINT names another server than huggingface.co.

A push is one commit, with a card (README.md) of what is there: of a policy its manifest
and the success rates of --evaluation, of a dataset what `experiments.describe` says.
--card=FILE puts your own text in its place. Every byte is checked before a push and
after a pull.
"""

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from data_pipeline import plan as plan_lib
from data_pipeline import source
from experiments import cli, describe
from experiments.datasets import counts
from experiments.reporting import cards
from hand_eye.deploy import policy_file

_DATASETS = "datasets/"  # As the Hub's own addresses have it.
_CARD = "README.md"


class Pulled(NamedTuple):
  """What came: paths of policy files and of dataset folders."""

  policies: list[Path]
  datasets: list[Path]


def push(
  path: str | Path,
  repo: str,
  *,
  evaluation: str | Path = "",
  card: str | Path = "",
  private: bool = False,
  api: Any = None,
) -> str:
  """Puts a policy file or a dataset into a repository, which is made if need be.

  Args:
    path: a policy file, or the folder of a dataset.
    repo: `owner/name`.
    evaluation: the work folder of an evaluation of the policy, for its card.
    card: a Markdown file to take as the card; '' makes one.
    private: whether a new repository is.
    api: a `huggingface_hub.HfApi`, or what has its `create_repo` and `upload_folder`;
      None makes one.

  Returns:
    The repository's name as `pull` takes it.

  Raises:
    UserError, PolicyFileError, DatasetError: an input cannot be used, or the Hub says
      no.
  """
  path = Path(path)
  if card and not Path(card).is_file():
    raise cli.UserError(f"--card={card}: no such file; expected Markdown")
  if evaluation and path.is_dir():
    raise cli.UserError("--evaluation is of a policy; leave it out for a dataset")
  api = api or _api()
  with tempfile.TemporaryDirectory() as temporary:
    staging = Path(temporary)
    if path.is_dir():
      kind, place = "dataset", _stage_dataset(path, repo, staging)
      # What an earlier push left of the dataset, and nothing else, goes.
      delete = f"{place}/*"
    else:
      kind, delete = "model", None
      _stage_policy(path, repo, staging, Path(evaluation) if evaluation else None)
    if card:
      shutil.copyfile(card, staging / _CARD)
    try:
      api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
      api.upload_folder(
        repo_id=repo,
        repo_type=kind,
        folder_path=staging,
        delete_patterns=delete,
        commit_message=f"{path.name}, from hand_eye",
      )
    except Exception as error:  # The library has errors of many families.
      raise _refused(f"--repo={repo}", error) from error
  return repo if kind == "model" else _DATASETS + repo


def pull(repo: str, out: str | Path, *, revision: str = "", api: Any = None) -> Pulled:
  """Fetches a repository's policies, or its datasets; the same call resumes.

  Args:
    repo: `owner/name` of policies, `datasets/owner/name` of datasets.
    out: the folder for them.
    revision: a branch, tag or commit; '' is the newest of the main branch.
    api: a `huggingface_hub.HfApi`, or what has its `snapshot_download`; None makes one.

  Raises:
    UserError, PolicyFileError, DatasetError: the Hub says no, the folder cannot be
      written, or what came is damaged or nothing of ours.
  """
  api = api or _api()
  out = cli.prepare_workdir(out, flag="out")
  is_dataset = repo.startswith(_DATASETS)
  try:
    api.snapshot_download(
      repo.removeprefix(_DATASETS),
      repo_type="dataset" if is_dataset else "model",
      revision=revision or None,
      local_dir=out,
      allow_patterns=None if is_dataset else ["*.hep", "*.md"],
    )
  except Exception as error:
    raise _refused(f"--pull={repo}", error) from error
  if is_dataset:
    folders = sorted(found.parent for found in out.glob(f"*/*/{plan_lib.PLAN_FILE}"))
    for folder in folders:
      source.open_dataset(folder, verify="checksums")
    pulled = Pulled([], folders)
  else:
    pulled = Pulled(sorted(out.rglob("*.hep")), [])
    for file in pulled.policies:
      policy_file.read(file, policy_file.SAME_WEIGHTS)
  if not any(pulled):
    raise cli.UserError(
      f"--pull={repo} has no {'dataset' if is_dataset else 'policy file'} of hand_eye;"
      f" datasets are pulled as {_DATASETS}OWNER/NAME, policies as OWNER/NAME"
    )
  return pulled


def _stage_policy(
  path: Path, repo: str, staging: Path, evaluation: Path | None
) -> None:
  if not path.is_file():
    raise cli.UserError(
      f"--push={path} does not exist; expected a policy file of"
      " python -m experiments.export_policy, or the folder of a dataset"
    )
  shutil.copyfile(path, staging / path.name)
  cli.write_atomically(staging / _CARD, cards.of_policy(path, repo, evaluation))


def _stage_dataset(data: Path, repo: str, staging: Path) -> str:
  """Lays out the dataset as links, its card and its page; returns its place."""
  directory = counts.find(data)
  source.open_dataset(directory, verify="checksums")
  found, _ = describe.describe(directory, staging)
  cli.write_atomically(staging / _CARD, cards.of_dataset(found, repo))
  place = staging / directory.parent.name / directory.name
  for file in sorted(directory.rglob("*")):
    inside = file.relative_to(directory)
    if file.is_file() and not any(part.startswith(".") for part in inside.parts):
      (place / inside).parent.mkdir(parents=True, exist_ok=True)
      (place / inside).symlink_to(file.resolve())
  return place.relative_to(staging).as_posix()


def _api() -> Any:
  if importlib.util.find_spec("huggingface_hub") is None:
    raise cli.UserError(
      "huggingface_hub is needed to reach the Hub: pip install 'hand_eye[hub]'"
    )
  from huggingface_hub import HfApi

  return HfApi(library_name="hand_eye")


def _refused(what: str, error: Exception) -> cli.UserError:
  reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
  return cli.UserError(f"{what}: {reason} (`hf auth login` tells the Hub who you are)")


def define_flags() -> None:
  flags.DEFINE_string("push", "", "Policy file, or folder of a dataset, to share.")
  flags.DEFINE_string("repo", "", "OWNER/NAME of the repository that --push fills.")
  flags.DEFINE_string("evaluation", "", "Work folder of an evaluation, for the card.")
  flags.DEFINE_string("card", "", "Markdown file to take as the card.")
  flags.DEFINE_bool("private", False, "Make a new repository a private one.")
  flags.DEFINE_string(
    "pull", "", "Repository to fetch: OWNER/NAME of a policy, datasets/OWNER/NAME."
  )
  flags.DEFINE_string("out", "", "Folder for what --pull fetches.")
  flags.DEFINE_string("revision", "", "Branch, tag or commit to pull.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if bool(args.push) == bool(args.pull):
    raise cli.UserError("give one of --push=PATH --repo=OWNER/NAME, and --pull=REPO")
  if args.push:
    if not args.repo:
      raise cli.UserError("--repo is needed: OWNER/NAME of the repository to fill")
    name = push(
      args.push,
      args.repo,
      evaluation=args.evaluation,
      card=args.card,
      private=args.private,
    )
    print(f"Pushed. To fetch it: python -m experiments.hub --pull={name} --out=FOLDER")
    return
  pulled = pull(args.pull, args.out, revision=args.revision)
  for policy in pulled.policies:
    print(f"Policy: {policy}")
  for folder in pulled.datasets:
    print(f"Dataset: {folder}")


if __name__ == "__main__":
  cli.run(main, define_flags)
