"""Imports of published attempts: whole, resumed, with broken records, in any order."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import records, source
from data_pipeline.importers import levine2016
from experiments import cli, import_data
from experiments.datasets import import_report
from tests.data_pipeline import made_up

METRES = levine2016.Conventions("metres")
FILES = tuple(f"grasping_dataset_057.tfrecord-0000{i}-of-00002" for i in range(2))


def import_paper(source, workdir, *, conventions=METRES, **options):
  return import_data.import_dataset(
    str(source), workdir, "paper", conventions=conventions, **options
  )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """A folder as the authors' download leaves it: two files of three attempts each."""
  folder = tmp_path_factory.mktemp("published")
  rng = np.random.default_rng(0)
  for number, name in enumerate(FILES):
    attempts = [
      made_up.published_values(
        rng, 2, success=(number + i) % 2 == 0, robot=f"robot_{number}"
      )
      for i in range(3)
    ]
    made_up.write_tfrecord(folder / name, map(made_up.to_example, attempts))
  (folder / "features_057.csv").write_text("57\n12\ngrasp/image/encoded\n")
  return folder


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("imported")
  return import_paper(published, workdir)


def damaged(published, folder, name, damage):
  """A copy of the published files, one of them damaged."""
  folder.mkdir()
  for path in published.iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  (folder / name).write_bytes(damage((folder / name).read_bytes()))
  return folder


def shard_bytes(directory):
  return [path.read_bytes() for path in sorted(directory.glob("*array_record*"))]


def test_every_attempt_arrives_in_order(imported):
  dataset = source.open_dataset(imported, verify="checksums")
  assert dataset.frame_size == levine2016.FRAME_SIZE == 512
  ids = [records.decode(data, images=False)["attempt_id"] for data in dataset]
  assert ids == [f"{file}:{i:06d}" for file in FILES for i in range(3)]
  assert dataset.attempts.success.tolist() == [True, False, True, False, True, False]
  assert dataset.attempts.unit.tolist() == ["robot_0"] * 3 + ["robot_1"] * 3


@pytest.mark.slow
def test_the_import_is_the_same_on_two_processes(imported, published, tmp_path):
  again = import_paper(published, tmp_path, num_workers=2)
  assert shard_bytes(again) == shard_bytes(imported)


def test_an_interrupted_import_goes_on_where_it_was(
  imported, published, tmp_path, monkeypatch
):
  whole = import_data.import_file

  def interrupted(task, *rest):
    if task.shard == 1:
      raise KeyboardInterrupt
    return whole(task, *rest)

  monkeypatch.setattr(import_data, "import_file", interrupted)
  with pytest.raises(KeyboardInterrupt):
    import_paper(published, tmp_path)
  seen = []
  monkeypatch.setattr(
    import_data, "import_file", lambda task, *r: seen.append(task.shard) or whole(task)
  )
  directory = import_paper(published, tmp_path)
  assert seen == [1]
  assert shard_bytes(directory) == shard_bytes(imported)
  assert len(import_report.read_reports(directory.parent)) == 2


def test_other_conventions_do_not_continue_an_import(imported, published):
  other = levine2016.Conventions("opening")
  with pytest.raises(Exception, match="begun with another configuration") as caught:
    import_paper(published, imported.parents[1], conventions=other)
  assert cli.message_for_user(caught.value)


# Offsets within the damaged file: 200 bytes into the second record's data.
def flip_second(data):
  first = 16 + int.from_bytes(data[:8], "little")
  changed = bytearray(data)
  changed[first + 12 + 200] ^= 1
  return bytes(changed)


def flip_length(data):
  changed = bytearray(data)
  changed[16 + int.from_bytes(data[:8], "little")] ^= 1
  return bytes(changed)


@pytest.mark.parametrize(
  ("damage", "record", "reason", "left", "is_unread"),
  [
    (flip_second, 1, "does not fit its checksum", 5, False),
    (lambda data: data[: len(data) // 2], 1, "the file ends within the", 4, False),
    (lambda data: data[:-3], 2, "the file ends within the record", 5, False),
    (flip_length, 1, "nothing after it can be read", 4, True),
    (lambda data: b"?" + data[1:], 0, "nothing after it can be read", 3, True),
  ],
)
def test_a_broken_record_stops_the_import_or_is_counted(
  published, tmp_path, damage, record, reason, left, is_unread
):
  folder = damaged(published, tmp_path / "broken", FILES[1], damage)
  with pytest.raises(cli.UserError) as caught:
    import_paper(folder, tmp_path / "data")
  message = cli.message_for_user(caught.value)
  assert f"{FILES[1]}" in message and reason in message
  assert f"record {record}: " in message
  assert "--on_bad_record=skip" in message
  # The same folder goes on once the person has decided.
  directory = import_paper(folder, tmp_path / "data", on_bad_record="skip")
  assert len(source.open_dataset(directory)) == left
  reports = import_report.read_reports(directory.parent)
  said = "\n".join(import_report.summary(reports))
  assert "left out: 1 records" in said
  assert f"{FILES[1]}, record {record}: " in said and reason in said
  # What nothing is known of is not counted as if it were known.
  unread = sum(report.unread for report in reports)
  assert (unread > 1000) == is_unread
  assert (f"and {unread:,} bytes of 1 files" in said) == is_unread


def test_one_who_decides_to_skip_goes_on_where_the_import_stopped(published, tmp_path):
  """A file without any usable attempt is no shard, whatever was decided first."""
  folder = damaged(published, tmp_path / "broken", FILES[0], flip_second)
  rng = np.random.default_rng(2)
  hopeless = made_up.published_values(rng, 2)
  del hopeless["grasp/1/image/encoded"]
  path = folder / "grasping_dataset_058.tfrecord-00000-of-00001"
  made_up.write_tfrecord(path, [made_up.to_example(hopeless)])
  with pytest.raises(cli.UserError, match="has no usable attempt; record 0: steps"):
    import_paper(folder, tmp_path)
  path.unlink()
  with pytest.raises(cli.UserError, match="record 1: .*does not fit its checksum"):
    import_paper(folder, tmp_path)
  directory = import_paper(folder, tmp_path, on_bad_record="skip")
  assert len(source.open_dataset(directory)) == 5


def test_two_imports_of_different_files_can_be_merged(published, tmp_path):
  parts = [
    source.open_dataset(import_paper(published / name, tmp_path / f"part-{number}"))
    for number, name in enumerate(FILES)
  ]
  assert len(source.merge(parts)) == 6


def test_what_the_gripper_says_is_not_assumed(published, tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "experiments.import_data", f"--source={published}",
     f"--workdir={tmp_path}"],
    cwd=Path(import_data.__file__).parents[1], capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 1
  assert "--gripper_status is needed" in done.stderr
  assert not list(tmp_path.iterdir())


def test_an_awkward_attempt_is_left_out_and_its_neighbours_are_not(tmp_path):
  rng = np.random.default_rng(1)
  attempts = [made_up.published_values(rng, 2) for _ in range(3)]
  del attempts[1]["grasp/1/image/encoded"]
  path = tmp_path / "source" / FILES[0]
  made_up.write_tfrecord(path, map(made_up.to_example, attempts))
  directory = import_paper(path, tmp_path, on_bad_record="skip")
  assert len(source.open_dataset(directory)) == 2
  (report,) = import_report.read_reports(directory.parent)
  assert report.attempts == 2
  assert report.rejected == (
    (1, "steps [1] have no image, expected those of all 2 steps"),
  )


def test_a_file_without_attempts_gives_no_shard(published, tmp_path):
  folder = damaged(published, tmp_path / "broken", FILES[0], lambda data: data[:100])
  directory = import_paper(folder, tmp_path, on_bad_record="skip")
  assert len(source.open_dataset(directory)) == 3
  lost = [r for r in import_report.read_reports(directory.parent) if not r.attempts]
  assert [r.file for r in lost] == [FILES[0]] and len(lost[0].rejected) == 1


def test_nothing_usable_is_said_in_one_line(tmp_path):
  (tmp_path / "x.tfrecord").write_bytes(b"no records")
  with pytest.raises(cli.UserError, match="x.tfrecord, record 0: the file ends"):
    import_paper(tmp_path, tmp_path / "out", on_bad_record="skip")
  with pytest.raises(cli.UserError, match="no such files"):
    import_data.find_files(str(tmp_path / "*.record"))


def test_the_log_says_what_a_person_should_check():
  reports = [
    import_report.FileReport(
      "a", 0, attempts=100, successes=90, agreements=15, compared=100, wide=90,
      last_motions=7,
    )
  ]  # fmt: skip
  said = "\n".join(import_report.summary(reports))
  assert "agree in 15.0 % of 100" in said and "counts another way" in said
  assert "90 readings" in said and "in 7 attempts the last step moved" in said
  good = import_report.FileReport("a", 0, attempts=9, agreements=9, compared=9)
  assert "another way" not in "\n".join(import_report.summary([good]))


def test_the_lists_of_keys_are_only_mentioned(published):
  said = import_report.promised([published / name for name in FILES])
  assert said == ["features_057.csv announces 12 attempts in all its files; 2 are here"]


def test_every_list_of_keys_finds_its_files(published, tmp_path):
  for part in ("062_a", "062_b"):
    for name in FILES:
      copy = tmp_path / name.replace("057", part)
      copy.write_bytes((published / name).read_bytes())
    (tmp_path / f"features_{part}.csv").write_text("57\n6\ngrasp/image/encoded\n")
  paths, _ = import_data.find_files(str(tmp_path))
  assert import_report.promised(paths) == [
    f"features_{part}.csv announces 6 attempts in all its files; 2 are here"
    for part in ("062_a", "062_b")
  ]


def test_half_copied_files_are_left_out_and_missing_ones_named(tmp_path, caplog):
  whole = "grasping_dataset_057.tfrecord-00001-of-00004"
  half = [f"{whole}_.gstmp", f"{whole} (1)", f"{whole}.part", "x.tfrecord.crdownload"]
  for name in (whole, "b.tfrecord", *half):
    (tmp_path / name).touch()
  paths, _ = import_data.find_files(str(tmp_path))
  assert [path.name for path in paths] == ["b.tfrecord", whole]
  assert all(name in caplog.text for name in half)
  assert import_report.missing(paths) == [
    "grasping_dataset_057.tfrecord: 3 of 4 files are missing: 00000, 00002, 00003"
  ]
  with pytest.raises(cli.UserError, match="no such files .1 are no whole files.*gstmp"):
    import_data.find_files(str(tmp_path / "*.gstmp"))


def test_the_record_keeps_the_files_own_label(imported):
  for data in source.open_dataset(imported):
    record = records.decode(data, images=False)
    origin = json.loads(record["software"])
    assert origin["recorded_success"] == float(record["success"])
    assert origin["file"] in FILES
