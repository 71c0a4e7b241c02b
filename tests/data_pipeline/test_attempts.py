"""The table of attempts, and the index that keeps it."""

import json

import numpy as np
import pytest

from data_pipeline import attempts as attempts_lib
from data_pipeline import finish, records, source
from data_pipeline import index as index_lib
from data_pipeline import plan as plan_lib
from tests.data_pipeline import synthetic


def _records(count, **changes):
  rng = np.random.default_rng(count)
  made = [
    synthetic.synthetic_attempt(
      rng, frame_size=16, num_steps=1 + i % 3, unit=f"unit-{i % 4}"
    )
    for i in range(count)
  ]
  return [{**record, **changes} for record in made]


def test_a_column_of_texts_is_an_array_of_them():
  column = attempts_lib.Texts.of(["b", "a", "b"])
  assert np.asarray(column).tolist() == column.tolist() == ["b", "a", "b"]
  assert set(column) == {"a", "b"} and len(column) == 3
  assert (column == "b").tolist() == [True, False, True]
  assert (column == "c").tolist() == [False, False, False]
  assert column.isin(["a", "z"]).tolist() == [False, True, False]
  assert np.unique(column).tolist() == ["a", "b"]
  assert column.take(np.array([1])).tolist() == ["a"]


def test_a_column_of_lists_finds_rows_by_what_they_contain():
  column = attempts_lib.TextLists.of([["box", "ball"], [], ["ball", "ball", "cup"]])
  assert column.tolist() == [("box", "ball"), (), ("ball", "ball", "cup")]
  assert column.contains(["ball"]).tolist() == [True, False, True]
  assert column.contains(["cup", "box"]).tolist() == [True, False, True]
  assert column.contains(["hammer"]).tolist() == [False, False, False]
  assert column.take(np.array([2, 1])).tolist() == [("ball", "ball", "cup"), ()]


def test_rows_of_different_lengths_are_found():
  rows = attempts_lib.ragged_rows(np.array([2, 0, 3, 1]), np.array([2, 0, 1]))
  assert rows.tolist() == [2, 3, 4, 0, 1]
  assert attempts_lib.ragged_rows(np.array([2]), np.array([], int)).tolist() == []


def test_the_family_is_the_name_without_its_number():
  assert attempts_lib.family_of("box-000017") == "box"
  assert attempts_lib.family_of("coffee-mug-3") == "coffee-mug"
  assert attempts_lib.family_of("box") == "box"
  assert attempts_lib.family_of("") == ""


def test_joined_tables_say_what_one_table_of_all_says():
  first = _records(5, policy="random", objects=["cup-1", "box-2"], grasped="")
  second = _records(3, policy="servo", objects=["ball-9"], grasped="ball-9", round=2)
  joined = attempts_lib.join([attempts_lib.tabulate(part) for part in (first, second)])
  assert attempts_lib.equal(joined, attempts_lib.tabulate(first + second))
  assert joined.grasped.tolist() == [""] * 5 + ["ball"] * 3
  assert joined.families.tolist() == [("cup", "box")] * 5 + [("ball",)] * 3
  taken = joined.take(np.array([6, 0]))
  assert attempts_lib.equal(taken, attempts_lib.tabulate([second[1], first[0]]))
  assert not attempts_lib.equal(taken, joined.take(np.array([0, 6])))


def _seeds(rows):
  """Attempts of (unit, scene_seed, attempt_seed, policy)."""
  rng = np.random.default_rng(0)
  found = []
  for unit, scene, number, policy in rows:
    one = synthetic.synthetic_attempt(rng, 8, 1, unit=unit, policy=policy)
    found.append({**one, "scene_seed": scene, "attempt_seed": number})
  return attempts_lib.tabulate(found)


def test_what_is_there_again_is_found_where_it_was_first():
  rows = [
    *[("a", 1, 1, "p"), ("b", 1, 1, "p"), ("a", 2, 1, "p"), ("a", 1, 1, "p")],
    *[("a", 1, 2, "p"), ("b", 1, 1, "p"), ("a", 1, 1, "q"), ("a", 1, 1, "p")],
  ]
  again, first = attempts_lib.duplicates(_seeds(rows))
  assert list(zip(again.tolist(), first.tolist(), strict=True)) == [
    *[(3, 0), (5, 1), (7, 0)]
  ]
  for few in ([], rows[:1]):
    assert [len(found) for found in attempts_lib.duplicates(_seeds(few))] == [0, 0]


def test_attempts_in_one_bin_have_its_number():
  rows = [("a", 1, 1, "p"), ("b", 1, 1, "p"), ("a", 1, 2, "q"), ("b", 2, 1, "p")]
  found = attempts_lib.scenes(_seeds(rows)).tolist()
  assert found[0] == found[2] and len(set(found)) == 3


def test_an_index_is_read_back_and_a_damaged_one_is_named(tmp_path):
  table = attempts_lib.tabulate(_records(4))
  path = tmp_path / "index.npz"
  expected = index_lib.write(path, table)
  assert attempts_lib.equal(index_lib.read(path, expected), table)
  data = path.read_bytes()
  path.write_bytes(data[:-1])
  with pytest.raises(plan_lib.DatasetError, match=f"has {len(data) - 1} bytes"):
    index_lib.read(path, expected)
  path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
  with pytest.raises(plan_lib.DatasetError, match="has the checksum"):
    index_lib.read(path, expected)
  path.unlink()
  with pytest.raises(plan_lib.DatasetError, match="index.npz: No such file"):
    index_lib.read(path, expected)


def test_an_index_of_another_format_is_not_used(tmp_path, monkeypatch):
  monkeypatch.setattr(index_lib, "_FORMAT", 2)
  expected = index_lib.write(tmp_path / "i.npz", attempts_lib.tabulate(_records(1)))
  monkeypatch.undo()
  with pytest.raises(plan_lib.DatasetError, match=r"format 2.*expected format 1"):
    index_lib.read(tmp_path / "i.npz", expected)


def _assert_same(found, expected):
  assert found.fingerprint == expected.fingerprint
  assert attempts_lib.equal(found.attempts, expected.attempts)


def test_the_index_says_what_the_records_say(finished):
  _assert_same(
    source.open_dataset(finished), source.open_dataset(finished, verify="records")
  )
  decoded = [
    records.decode(data, images=False) for data in source.open_dataset(finished)
  ]
  attempts = source.open_dataset(finished).attempts
  for name in ("round", "attempt_seed", "drop_test", "simulator_truth", "success"):
    assert getattr(attempts, name).tolist() == [record[name] for record in decoded]
  np.testing.assert_array_equal(
    attempts.gripper_reading,
    np.array([record["gripper_reading"] for record in decoded], np.float32),
  )
  assert attempts.families.tolist() == [("box", "ball")] * 24


def test_opening_with_the_index_reads_no_record(breakable):
  for path in breakable.glob("*.array_record-*"):
    path.write_bytes(bytes(path.stat().st_size))
  assert len(source.open_dataset(breakable)) == 24


def test_without_its_index_a_dataset_is_read_instead(breakable, dataset, caplog):
  plan_lib.dataset_index(breakable).write_bytes(b"?")
  _assert_same(source.open_dataset(breakable), dataset)
  assert "index.npz has 1 bytes" in caplog.text
  plan_lib.dataset_index(breakable).unlink()
  _assert_same(source.open_dataset(breakable), dataset)


def _make_old(directory):
  """Makes a dataset look as if it was written before there were indices."""
  for path in [*directory.glob("shards/*.json"), directory / "manifest.json"]:
    content = json.loads(path.read_text())
    for entry in (content, *content.get("shards", ())):
      entry.pop("index", None)
      entry.pop("quarantined", None)
    path.write_text(json.dumps(content))
  for path in directory.rglob("*index.npz"):
    path.unlink()


def test_an_older_dataset_opens_and_finishing_it_again_makes_the_index(
  breakable, dataset
):
  _make_old(breakable)
  _assert_same(source.open_dataset(breakable), dataset)
  finish.finalize(breakable)
  assert plan_lib.read_manifest(breakable) == plan_lib.read_manifest(
    dataset.records.paths[0].parent
  )
  _assert_same(source.open_dataset(breakable), dataset)
