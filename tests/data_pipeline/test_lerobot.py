"""The exporter to LeRobot's layout: what its own loader looks for, and equal data."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipeline import plan, records, source
from data_pipeline.exporters import lerobot
from tests.data_pipeline import synthetic


@pytest.fixture(scope="module")
def exported(dataset, tmp_path_factory):
  return lerobot.export(dataset, tmp_path_factory.mktemp("out") / "lerobot", fps=2)


def read_json(folder, name):
  return json.loads((folder / "meta" / name).read_text(encoding="utf-8"))


def frames(folder):
  return pq.read_table(folder / "data/chunk-000/file-000.parquet")


def episodes(folder):
  path = folder / "meta/episodes/chunk-000/file-000.parquet"
  return pq.read_table(path).to_pylist()


def test_the_description_fits_what_is_there(exported, dataset):
  info = read_json(exported, "info.json")
  table = frames(exported)
  assert info["codebase_version"] == "v3.0"
  assert info["total_episodes"] == len(dataset) == len(episodes(exported))
  assert info["total_frames"] == table.num_rows == 3 * len(dataset)
  assert info["splits"] == {"train": f"0:{len(dataset)}"}
  assert table.column_names == list(info["features"])
  path = info["data_path"].format(chunk_index=0, file_index=0)
  assert (exported / path).is_file()
  for name, feature in info["features"].items():
    kind = table.schema.field(name).type
    if feature["dtype"] == "image":
      assert str(kind) == "struct<bytes: binary, path: string>"
      assert feature["shape"] == [72, 72, 3]
    elif feature["shape"] == [1]:
      assert str(kind).startswith(feature["dtype"].replace("float32", "float"))
    else:
      assert kind.list_size == feature["shape"][0] == len(feature["names"])


def test_every_step_is_as_it_was_recorded(exported, dataset):
  rows = frames(exported).to_pylist()
  for index, data in enumerate(dataset):
    record, jpegs = records.decode(data, images=False), records.jpegs(data)
    mine = [row for row in rows if row["episode_index"] == index]
    state = [row["observation.state"] for row in mine]
    np.testing.assert_array_equal(np.float32(state), record["poses"])
    np.testing.assert_array_equal(
      np.float32([row["action"] for row in mine]), record["commands"]
    )
    assert [row[lerobot.IMAGE]["bytes"] for row in mine] == jpegs[1:]
    assert {row[lerobot.PREGRASP]["bytes"] for row in mine} == {jpegs[0]}
    assert [row["timestamp"] for row in mine] == [0, 0.5, 1]
    assert [row["next.done"] for row in mine] == [False, False, True]
    assert [row["next.success"] for row in mine] == [False, False, record["success"]]
    assert sum(row["next.reward"] for row in mine) == record["success"]
  assert [row["index"] for row in rows] == list(range(len(rows)))


def test_attempts_say_where_their_steps_are(exported, dataset):
  table = frames(exported)
  for number, episode in enumerate(episodes(exported)):
    begin, end = episode["dataset_from_index"], episode["dataset_to_index"]
    assert set(table["episode_index"][begin:end].to_pylist()) == {number}
    assert end - begin == episode["length"] == 3
    assert (episode["data/chunk_index"], episode["data/file_index"]) == (0, 0)
    assert episode["tasks"] == [lerobot.TASK]
    assert episode["success"] == bool(dataset.attempts.success[number])
    state = np.array(table["observation.state"][begin:end].to_pylist())
    np.testing.assert_allclose(
      episode["stats/observation.state/mean"], state.mean(axis=0), atol=1e-6
    )


def test_statistics_are_those_of_the_whole(exported, dataset):
  stats = read_json(exported, "stats.json")
  info = read_json(exported, "info.json")
  assert stats.keys() == info["features"].keys()
  action = np.array(frames(exported)["action"].to_pylist())
  for name, expected in (
    ("mean", action.mean(axis=0)),
    ("std", action.std(axis=0)),
    ("min", action.min(axis=0)),
    ("max", action.max(axis=0)),
    ("q10", np.quantile(action, 0.1, axis=0)),
    ("q99", np.quantile(action, 0.99, axis=0)),
  ):
    np.testing.assert_allclose(stats["action"][name], expected, atol=1e-6)
  assert stats["action"]["count"] == [len(action)]
  decoded = [dataset.decoded(i, images=True) for i in range(len(dataset))]
  for name, field in ((lerobot.IMAGE, "images"), (lerobot.PREGRASP, "pregrasp_image")):
    pixels = np.stack([record[field] for record in decoded])[..., ::4, ::4, :] / 255
    for key, expected in (("mean", np.mean), ("std", np.std), ("max", np.max)):
      assert np.shape(stats[name][key]) == (3, 1, 1)
      np.testing.assert_allclose(
        np.ravel(stats[name][key]), expected(pixels.reshape(-1, 3), 0), atol=1e-9
      )
    for key, share in lerobot.QUANTILES.items():
      np.testing.assert_allclose(
        np.ravel(stats[name][key]),
        np.quantile(pixels.reshape(-1, 3), share, axis=0),
        atol=1 / 255,
      )


def test_each_attempt_has_all_statistics_for_those_who_take_a_part(exported):
  whole = read_json(exported, "stats.json")
  rows = episodes(exported)
  for name, stats in whole.items():
    for key in stats:
      assert all(
        np.shape(row[f"stats/{name}/{key}"]) == np.shape(stats[key]) for row in rows
      )
  # LeRobot's own way from parts to the whole: means weighted by counts.
  for name in (lerobot.IMAGE, lerobot.PREGRASP, "action"):
    means = np.array([row[f"stats/{name}/mean"] for row in rows])
    counts = [row[f"stats/{name}/count"][0] for row in rows]
    np.testing.assert_allclose(
      np.average(means, axis=0, weights=counts), whole[name]["mean"], atol=1e-9
    )


def test_the_task_is_found_by_its_text(exported):
  table = pq.read_table(exported / "meta/tasks.parquet")
  assert table.to_pylist() == [{"task_index": 0, "task": lerobot.TASK}]
  pandas = json.loads(table.schema.metadata[b"pandas"])
  assert pandas["index_columns"] == ["task"]


def test_large_data_is_spread_over_files(dataset, tmp_path, monkeypatch):
  monkeypatch.setattr(lerobot, "_FILE_MB", 0.05)
  monkeypatch.setattr(lerobot, "_EPISODES_AT_ONCE", 5)
  monkeypatch.setattr(lerobot, "_FILES_PER_CHUNK", 2)
  out = lerobot.export(dataset, tmp_path / "out")
  found = sorted(out.glob("data/*/*.parquet"))
  assert len(found) > 2 and found[-1].parent.name != "chunk-000"
  for episode in episodes(out):
    place = episode["data/chunk_index"], episode["data/file_index"]
    path = out / f"data/chunk-{place[0]:03d}/file-{place[1]:03d}.parquet"
    inside = pq.read_table(path)["episode_index"].to_pylist()
    assert inside.count(episode["episode_index"]) == episode["length"]


def test_an_image_that_does_not_decode_is_named_or_its_attempt_left_out(
  tmp_path, monkeypatch, caplog
):
  encode = records.encode

  def encode_one_wrong(attempt):
    data = encode(attempt)
    wrong = attempt["attempt_id"] == "train-000001"
    return synthetic.with_cut_image(data, 2) if wrong else data

  monkeypatch.setattr(records, "encode", encode_one_wrong)
  directory = synthetic.write_synthetic_dataset(tmp_path, num_attempts=4, num_shards=1)
  with pytest.raises(
    plan.DatasetError, match=r"record 1 of .*00000-of-00001 is broken"
  ):
    lerobot.export(source.open_dataset(directory), tmp_path / "out")
  assert not (tmp_path / "out").exists()
  dataset = source.open_dataset(directory, on_bad_record="skip")
  out = lerobot.export(dataset, tmp_path / "out")
  kept = [row["attempt_id"] for row in episodes(out)]
  assert kept == ["train-000000", "train-000002", "train-000003"]
  assert [row["episode_index"] for row in episodes(out)] == [0, 1, 2]
  assert frames(out)["index"].to_pylist() == list(range(9))
  info = read_json(out, "info.json")
  assert (info["total_episodes"], info["total_frames"]) == (3, 9)
  assert "left out: record 1 of" in caplog.text
  with pytest.raises(plan.DatasetError, match="all of 1 attempts are broken"):
    lerobot.export(dataset.select(np.array([1])), tmp_path / "none")


def test_nothing_remains_of_an_export_that_fails(dataset, tmp_path):
  def fail(_):
    raise RuntimeError("stopped")

  with pytest.raises(RuntimeError, match="stopped"):
    lerobot.export(dataset, tmp_path / "out", advance=fail)
  assert list(tmp_path.iterdir()) == []
  (tmp_path / "out").mkdir()
  with pytest.raises(plan.DatasetError, match="exists"):
    lerobot.export(dataset, tmp_path / "out")
