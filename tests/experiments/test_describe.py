"""What a dataset holds, counted by hand, and the page that says so."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest
from PIL import Image

from data_pipeline import finish, records, source, writer
from data_pipeline import plan as plan_lib
from experiments import cli, describe, statistics
from experiments.datasets import contact_sheet, counts
from tests.data_pipeline import synthetic

# unit, T, round, policy, success, reading, drop test, truth, objects, grasped
ATTEMPTS = (
  ("a", 2, 0, "random", True, 0.03, True, True, ["box-1", "ball-2"], "box-1"),
  ("a", 3, 0, "random", True, 0.02, False, False, ["box-1", "box-3"], ""),
  ("a", 2, 1, "servo", True, 0.001, True, True, ["ball-2"], "ball-2"),
  ("b", 4, 1, "servo", False, 0.0, False, True, ["ball-2", "box-1"], "box-1"),
  ("b", 2, 1, "servo", False, 0.0, False, False, ["ball-2"], ""),
)


def write(root, rows=ATTEMPTS, name="train", **changes):
  """A dataset of the rows above; `changes` are fields of every record."""
  rng = np.random.default_rng(0)
  directory = plan_lib.begin(root, plan_lib.Plan(name, 1, frame_size=72))
  with writer.ShardWriter(directory, 0) as shard:
    for i, row in enumerate(rows):
      record = synthetic.synthetic_attempt(
        rng, num_steps=row[1], success=row[4], unit=row[0], attempt_id=str(i)
      )
      record.update(
        round=row[2], policy=row[3], gripper_reading=row[5], drop_test=row[6],
        simulator_truth=row[7], objects=row[8], grasped=row[9], scene_seed=i // 2,
        **changes,
      )  # fmt: skip
      shard.write(record)
  finish.finalize(directory)
  return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  return write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def found(directory):
  return counts.read(directory, on_bad_record="fail")


def test_success_is_counted_by_unit_round_steps_and_policy(found):
  version = "1"  # Of the policy, as synthetic attempts have it.
  assert found.total == statistics.rate(3, 5)
  assert dict(found.tables["unit"]) == {
    "a": statistics.rate(3, 3),
    "b": statistics.rate(0, 2),
  }
  assert dict(found.tables["round"]) == {
    "0": statistics.rate(2, 2),
    "1": statistics.rate(1, 3),
  }
  assert dict(found.tables["T"]) == {
    "2": statistics.rate(2, 3),
    "3": statistics.rate(1, 1),
    "4": statistics.rate(0, 1),
  }
  assert dict(found.tables["policy"]) == {
    f"random {version}": statistics.rate(2, 2),
    f"servo {version}": statistics.rate(1, 3),
  }


def test_families_count_once_an_attempt_and_once_an_object(found):
  ball, box = found.families
  assert ball == counts.Family("ball", statistics.rate(2, 4), objects=4, grasped=1)
  assert box == counts.Family("box", statistics.rate(2, 3), objects=4, grasped=2)


def test_labels_are_held_against_the_truth(found):
  agreement = found.agreement
  assert (agreement.both, agreement.reading_only) == (1, 1)
  assert (agreement.drop_test_only, agreement.neither) == (1, 2)
  reading, drop_test, label = agreement.detectors.values()
  # The truth is: yes, no, yes, yes, no.
  assert (reading["precision"], reading["recall"]) == (0.5, pytest.approx(1 / 3))
  assert (drop_test["precision"], drop_test["recall"]) == (1.0, pytest.approx(2 / 3))
  assert (label["says_success"], label["agreement"]) == (3, pytest.approx(3 / 5))


def test_every_sample_is_in_one_reach(found):
  everything, *parts = found.reaches.values()
  assert everything["attempts"] == len(found.samples) == 2 + 3 + 2 + 4 + 2
  assert sum(p["attempts"] for p in parts) == everything["attempts"]
  assert sum(p["successes"] for p in parts) == everything["successes"] == 7


def test_what_is_unknown_is_not_counted(tmp_path):
  origin = {
    "unknown": ["simulator_truth", "objects", "grasped", "scene_seed"],
    "recorded_success": 1.0,
  }
  write(tmp_path, software=json.dumps(origin))
  counted, page = describe.describe(tmp_path / "train", tmp_path / "out")
  assert counted.families == []
  (label,) = counted.agreement.detectors.values()
  assert counted.agreement.truth == "the label that the data came with"
  assert label["agreement"] == pytest.approx(3 / 5)
  text = page.read_text(encoding="utf-8")
  assert "Not known of these attempts" in text and "scenes unknown" in text
  assert "simulator&#x27;s truth" not in text


def test_software_that_is_no_json_is_no_obstacle(tmp_path):
  write(tmp_path, software="mujoco 3")
  counted = counts.read(tmp_path / "train" / "1.0.0", on_bad_record="fail")
  assert counted.unknown == counted.partly_unknown == frozenset()


class Checker(html.parser.HTMLParser):
  """Collects addresses, and checks that tags are closed in order."""

  def __init__(self, text):
    super().__init__()
    self.addresses, self.tags, self.open = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
    if tag not in ("meta", "br", "img"):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.handle_starttag(tag, attrs)
    if tag not in ("meta", "br", "img"):
      self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_the_page_needs_no_other_file_and_says_what_was_counted(directory, tmp_path):
  _, page = describe.describe(directory, tmp_path)
  text = page.read_text(encoding="utf-8")
  checked = Checker(text)
  assert checked.open == []
  assert checked.tags.count("img") == 1 and checked.tags.count("svg") == 3
  assert all(a.startswith(("data:", "#")) for a in checked.addresses)
  for words in ("60.0 %", "ball", "servo 1", "66.7 %", "4 scenes", "far ("):
    assert words in text, words
  bare = re.sub(r"data:[^\"]*|<svg.*?</svg>", "", text, flags=re.DOTALL)
  assert not re.search(r"\b(None|nan|inf)\b", bare)


def test_the_terminal_says_the_same_and_cuts_long_tables(found):
  bare = re.sub(r"[| ]+", " ", describe.terminal(found))
  for row in (
    " unit a 100.0 % 43.9 to 100.0 % 3 3 ",
    " box 3 66.7 % 4 2 50.0 ",
    " drop test 2 100.0 % 66.7 % 80.0 % ",
  ):
    assert f"\n{row}\n" in bare
  many = {f"u{i:02d}": statistics.rate(1, 2) for i in range(15)}
  found = dataclasses.replace(found, tables={**found.tables, "unit": many})
  text = describe.terminal(found)
  assert "By unit: 15" in text and "| u11 " in text and "| u12 " not in text


def test_broken_records_and_images_are_left_out_and_named(tmp_path, monkeypatch):
  encode = records.encode

  def encode_one_wrong(attempt):
    data = encode(attempt)
    return synthetic.with_cut_image(data, 1) if attempt["attempt_id"] == "4" else data

  monkeypatch.setattr(records, "encode", encode_one_wrong)
  directory = write(tmp_path)
  shard = directory / plan_lib.read_plan(directory).shard_file(0)
  with pytest.raises(plan_lib.DatasetError, match=r"record 4 of .*not a readable JPEG"):
    describe.describe(directory, tmp_path / "out")
  size = shard.stat().st_size
  content = bytearray(shard.read_bytes())
  content[1500] ^= 1  # In the first record.
  shard.write_bytes(content)
  with pytest.raises(plan_lib.DatasetError, match="record 0 of .* is broken"):
    describe.describe(directory, tmp_path / "out")
  counted, page = describe.describe(
    directory, tmp_path / "out", on_bad_record="skip", num_shown=5
  )
  assert counted.total == statistics.rate(2, 4)
  first, second = counted.broken
  assert "record 0 of" in first and "record 4 of" in second and "JPEG" in second
  assert "2 broken parts were left out" in page.read_text(encoding="utf-8")
  assert counted.size_bytes == size
  assert Image.open(tmp_path / "out" / describe.SHEET).height > 300  # Three strips.


def test_a_record_that_broke_since_it_was_opened_is_left_out(directory, monkeypatch):
  """What the index does not tell is met when attempts are decoded."""
  dataset = counts.read(directory, on_bad_record="skip").dataset
  monkeypatch.setattr(
    source.Dataset, "__getitem__", lambda self, i: b"?" if i == 2 else self.records[i]
  )
  found, broken = counts.decode_some(dataset, range(5), images=False)
  assert [record["attempt_id"] for record in found] == ["0", "1", "3", "4"]
  assert len(broken) == 1 and "record 2 of" in broken[0]


def test_a_single_attempt_is_described(tmp_path):
  write(tmp_path, [("a", 1, 0, "random", False, 0.0, False, False, [], "")])
  counted, page = describe.describe(tmp_path / "train", tmp_path / "out")
  assert counted.total == statistics.rate(0, 1)
  assert counted.agreement.detectors["label"]["recall"] is None
  assert "undefined" in page.read_text(encoding="utf-8")


# --- the contact sheet ----------------------------------------------------------------


def test_the_sheet_shows_both_outcomes_and_many_units(tmp_path):
  rows = [
    (f"u{i % 5}", 2, 0, "p", i % 4 == 0, 0.0, False, False, [], "") for i in range(40)
  ]
  attempts = counts.read(write(tmp_path, rows), on_bad_record="fail").dataset.attempts
  chosen = contact_sheet.choose(attempts, 10)
  assert len(set(chosen)) == 10
  assert attempts.success[chosen].tolist() == [True] * 5 + [False] * 5
  units = np.asarray(attempts.unit)[chosen]
  assert len(set(units[:5])) == len(set(units[5:])) == 5
  assert chosen == contact_sheet.choose(attempts, 10)
  # Where one outcome is rare, the other fills its place.
  assert attempts.success[contact_sheet.choose(attempts, 30)].sum() == 10
  assert sorted(contact_sheet.choose(attempts, 99)) == list(range(40))


def test_a_strip_shows_its_images_in_order(directory, tmp_path):
  counted, _ = describe.describe(directory, tmp_path, num_shown=2)
  sheet = np.asarray(Image.open(tmp_path / describe.SHEET), np.float32)
  success, failure = (sheet[:, : sheet.shape[1] // 2], sheet[:, sheet.shape[1] // 2 :])
  tile = contact_sheet.TILE
  # Synthetic attempts end in a bright patch after a success, in a dark one otherwise.
  row, last = tile // 2, 2 * tile + tile // 2
  assert success[row, last].mean() > 200
  assert failure[row, last].mean() < 60
  # And the band below says the same in green and red.
  band = tile + 6
  assert success[band, 60, 1] > 150 > 100 > failure[band, 60, 1]


# --- what can be wrong ----------------------------------------------------------------


def test_a_folder_that_is_no_dataset_is_named(directory, tmp_path):
  assert counts.find(directory) == directory
  assert counts.find(directory.parent) == directory
  with pytest.raises(cli.UserError, match="--data=.* is not the folder of a dataset"):
    counts.find(tmp_path)
  with pytest.raises(cli.UserError, match="--data is needed"):
    counts.find("")
