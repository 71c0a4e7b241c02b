"""Policies and datasets go to the Hub with a card, and come back whole."""

import inspect
import shutil
from pathlib import Path

import pytest

import hand_eye
from data_pipeline import plan, source
from experiments import cli, hub
from hand_eye.deploy import policy_file
from tests.data_pipeline import synthetic

# The network of Figure 4 in small.
SHIPPED = Path(hand_eye.__file__).parent / "pretrained" / "small.hep"


class FolderHub:
  """The three calls of `huggingface_hub.HfApi` that are used, on a local folder."""

  def __init__(self, root):
    self.root = root

  def create_repo(self, repo_id, *, repo_type, private, exist_ok):
    self.repo(repo_id, repo_type).mkdir(parents=True, exist_ok=exist_ok)
    self.private = private

  def upload_folder(
    self, *, repo_id, repo_type, folder_path, delete_patterns, commit_message
  ):
    repo = self.repo(repo_id, repo_type)
    for old in repo.glob(delete_patterns) if delete_patterns else ():
      shutil.rmtree(old) if old.is_dir() else old.unlink()
    shutil.copytree(folder_path, repo, dirs_exist_ok=True)

  def snapshot_download(
    self, repo_id, *, repo_type, revision, local_dir, allow_patterns
  ):
    if not self.repo(repo_id, repo_type).is_dir():
      raise ConnectionError(f"404 Client Error: {repo_id}\nfor a long address")
    for file in self.repo(repo_id, repo_type).glob("**/*"):
      inside = file.relative_to(self.repo(repo_id, repo_type))
      if file.is_file() and any(map(inside.match, allow_patterns or ["*"])):
        (local_dir / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, local_dir / inside)

  def repo(self, repo_id, repo_type):
    return self.root / f"{repo_type}s" / repo_id


@pytest.fixture
def api(tmp_path):
  return FolderHub(tmp_path / "hub")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  return synthetic.write_synthetic_dataset(tmp_path_factory.mktemp("data"))


def test_a_policy_comes_back_with_a_card_of_what_it_is(api, tmp_path):
  rate = {"attempts": 200, "successes": 120, "rate": 0.6, "low": 0.5, "high": 0.7}
  summary = {"policies": {"exported": {"with_replacement": rate}}}
  cli.write_json(tmp_path / "evaluate/summary.json", summary)
  name = hub.push(
    SHIPPED, "me/grasping", evaluation=tmp_path / "evaluate", private=True, api=api
  )
  assert name == "me/grasping" and api.private
  pulled = hub.pull(name, tmp_path / "out", api=api)
  assert pulled == ([tmp_path / "out/small.hep"], [])
  assert pulled.policies[0].read_bytes() == SHIPPED.read_bytes()
  card = (tmp_path / "out/README.md").read_text()
  front, _, body = card.removeprefix("---\n").partition("\n---\n")
  assert "pipeline_tag: robotics" in front
  for fact in (
    "small, 85,889 parameters",
    "72 → 64 pixels",
    "60.0 %",
    "--pull=me/grasping",
  ):
    assert fact in body


def test_a_dataset_comes_back_with_its_description(api, tmp_path, finished):
  name = hub.push(finished.parent, "me/grasps", api=api)
  assert name == "datasets/me/grasps" and not api.private
  repo = api.repo("me/grasps", "dataset")
  stale = repo / "train/1.0.0/train-train.array_record-00000-of-00009"
  stale.write_bytes(b"of an earlier push")
  (repo / "notes.txt").write_text("the owner's")
  hub.push(finished, "me/grasps", api=api)
  assert not stale.exists() and (repo / "notes.txt").exists()
  (folder,) = hub.pull(name, tmp_path / "out", api=api).datasets
  assert folder == tmp_path / "out/train/1.0.0"
  assert len(source.open_dataset(folder)) == 24
  card = (tmp_path / "out/README.md").read_text()
  for fact in ("size_categories: [n<1K]", "24", "--pull=datasets/me/grasps"):
    assert fact in card
  assert (tmp_path / "out/describe.html").is_file()


def test_a_card_of_ones_own_takes_the_place_of_ours(api, tmp_path):
  (tmp_path / "mine.md").write_text("# Mine\n")
  hub.push(SHIPPED, "me/grasping", card=tmp_path / "mine.md", api=api)
  assert (api.repo("me/grasping", "model") / "README.md").read_text() == "# Mine\n"
  with pytest.raises(cli.UserError, match="--card=.*no such file"):
    hub.push(SHIPPED, "me/grasping", card=tmp_path / "none.md", api=api)


def test_nothing_damaged_is_pushed_or_taken(api, tmp_path, finished):
  data = bytearray(SHIPPED.read_bytes())
  data[len(data) // 2] ^= 1
  broken = tmp_path / "broken.hep"
  broken.write_bytes(data)
  with pytest.raises(policy_file.PolicyFileError, match="broken.hep"):
    hub.push(broken, "me/broken", api=api)
  name = hub.push(finished, "me/grasps", api=api)
  shard = next(api.repo("me/grasps", "dataset").glob("train/1.0.0/*00000-of-00002"))
  content = bytearray(shard.read_bytes())
  content[100] ^= 1
  shard.write_bytes(content)
  with pytest.raises(plan.DatasetError, match="00000-of-00002"):
    hub.pull(name, tmp_path / "out", api=api)
  assert not api.repo("me/broken", "model").exists()


def test_what_cannot_be_had_is_one_line(api, tmp_path, finished):
  with pytest.raises(cli.UserError, match=r"--pull=me/none: 404 .*hf auth login") as e:
    hub.pull("me/none", tmp_path / "out", api=api)
  assert "\n" not in str(e.value)
  with pytest.raises(cli.UserError, match="does not exist; expected a policy file"):
    hub.push(tmp_path / "none.hep", "me/x", api=api)
  with pytest.raises(cli.UserError, match="leave it out for a dataset"):
    hub.push(finished, "me/x", evaluation=tmp_path, api=api)
  with pytest.raises(cli.UserError, match="no summary.json"):
    hub.push(SHIPPED, "me/x", evaluation=tmp_path, api=api)
  api.repo("me/other", "model").mkdir(parents=True)
  with pytest.raises(cli.UserError, match="has no policy file .* datasets/OWNER/NAME"):
    hub.pull("me/other", tmp_path / "out", api=api)


def test_the_stand_in_takes_what_the_library_takes():
  library = pytest.importorskip("huggingface_hub")
  for name in ("create_repo", "upload_folder", "snapshot_download"):
    theirs = inspect.signature(getattr(library.HfApi, name)).parameters
    ours = inspect.signature(getattr(FolderHub, name)).parameters
    assert ours.keys() <= theirs.keys()
