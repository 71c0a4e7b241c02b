"""Which attempts are filmed for the report, and that the films are of these."""

import dataclasses
import json

import av
import numpy as np
import pytest

from envs import protocols, rollout, units
from experiments.evaluation import conditions, policies
from experiments.evaluation import trials as trials_lib
from experiments.pictures import films as films_lib
from experiments.pictures import video as video_lib


def row(**changes):
  default = {
    "trial": "servo / with_replacement / bin 0",
    "policy": "servo",
    "protocol": "with_replacement",
    "condition": "",
    "repetition": 0,
    "attempt": 0,
    "unit": "held_out-1000",
    "scene_seed": 300,
    "success": True,
    "simulator_truth": True,
    "grasped": "hammer-1",
    "target": "hammer-1",
    "target_moved": 0.0,
    "closed_at_step": 3,
    "num_steps": 5,
    "diverged_in_scene": 0,
  }
  return {**default, **changes}


def failed(**changes):
  return row(success=False, simulator_truth=False, grasped="", **changes)


def which(films):
  return [
    (f.kind, f.row["policy"], f.row["repetition"], f.row["attempt"]) for f in films
  ]


def test_early_attempts_are_chosen_each_from_a_bin_of_its_own():
  rows = [
    row(repetition=0, attempt=1),
    failed(repetition=0, attempt=0),
    row(repetition=1, attempt=0),
    row(repetition=1, attempt=1),
    failed(repetition=2, attempt=0),
    row(repetition=2, attempt=1),
    failed(repetition=2, attempt=2),
  ]
  assert which(films_lib.choose(rows, "servo", 2)) == [
    ("success", "servo", 1, 0),
    ("success", "servo", 0, 1),
    ("failure", "servo", 0, 0),
    ("failure", "servo", 2, 0),
  ]
  assert which(films_lib.choose(rows, "servo", 1)) == [
    ("success", "servo", 1, 0),
    ("failure", "servo", 0, 0),
  ]
  assert films_lib.choose(rows, "servo", 0) == []
  assert films_lib.choose(rows, "oracle", 2) == []


@pytest.mark.parametrize(
  "change",
  [
    {"simulator_truth": False},  # the label is wrong
    {"condition": "light=0.5"},
    {"diverged_in_scene": 1},
    {"policy": "servo:no_raise"},
  ],
)
def test_what_would_mislead_is_not_shown(change):
  assert films_lib.choose([row(**change)], "servo", 2) == []


def test_with_replacement_comes_first():
  rows = [row(protocol="without_replacement"), row(repetition=3, attempt=5)]
  assert which(films_lib.choose(rows, "servo", 1)) == [("success", "servo", 3, 5)]


def test_a_baseline_fails_beside_a_success_in_the_same_untouched_bin():
  rows = [
    row(repetition=1),
    row(repetition=2),
    failed(policy="random", repetition=1),
    failed(policy="hand_designed", repetition=2),
    failed(policy="open_loop", repetition=2, attempt=1),  # another bin by then
  ]
  films = films_lib.choose(rows, "servo", 2)
  assert which(films)[2:] == [("failure", "hand_designed", 2, 0)]
  assert films[-1].caption.endswith("The same bin as servo had there.")
  assert len(films_lib.choose(rows[:1], "servo", 2)) == 1


def test_a_correction_has_seen_that_its_target_moved_and_grasped_it():
  def pushed(**changes):
    return row(**{"condition": "push=0.4", "target_moved": 0.02, **changes})

  rows = [
    pushed(repetition=0),
    pushed(repetition=1, target_moved=0.05),
    pushed(repetition=2, target_moved=0.005),
    pushed(repetition=3, closed_at_step=conditions.PUSH_STEP),
    pushed(repetition=4, success=False, simulator_truth=False),
    pushed(repetition=5, grasped="box-2"),
  ]
  films = films_lib.corrections(rows, 9)
  assert which(films) == [("correction", "servo", 1, 0), ("correction", "servo", 0, 0)]
  assert "moved by 5.0 cm" in films[0].caption
  assert which(films_lib.corrections(rows, 1)) == which(films)[:1]


def test_names_of_files_have_nothing_that_a_shell_minds():
  film = films_lib.Film("success", row(policy="servo:no_raise@10", repetition=3), "")
  assert film.file == "servo-no_raise-10-success-held_out-1000-scene-3.mp4"


class Captions(video_lib.VideoRecorder):
  """Keeps what is written under the pictures."""

  kept: list[str] = []

  def _write(self, image, count=1):
    if not self.kept or self.kept[-1] != self._caption:
      self.kept.append(self._caption)
    super()._write(image, count)


@pytest.fixture
def setting():
  scenes = [
    rollout.SceneTask(
      unit=units.sample_unit(1_000 + i % 2, "held_out"),
      scene_seed=60 + i,
      num_attempts=2,
      num_steps=(4,),
      num_objects=3,
      objects="box",
      frame_size=72,
    )
    for i in range(3)
  ]
  few = [
    dataclasses.replace(scene, num_attempts=1, pushing=films_lib.PUSH.pushing)
    for scene in scenes
  ]
  oracle, name = policies.ORACLE, protocols.NAMES[0]
  trials = trials_lib.split(oracle, name, conditions.NOTHING, scenes)
  trials += trials_lib.split(policies.RANDOM, name, conditions.NOTHING, scenes)
  return trials, trials_lib.split(oracle, name, films_lib.PUSH, few)


def test_films_are_of_the_attempts_that_were_counted_and_stay(
  setting, tmp_path, monkeypatch
):
  trials, pushed = setting
  rows = [one for trial in trials for one in trials_lib.run_trial(trial)]
  arguments = (tmp_path, trials, rows, pushed, "oracle")

  def film():
    films_lib.film(*arguments, count=1, size=64, num_workers=1)
    return json.loads((tmp_path / "videos" / "gallery.json").read_text())

  shown = film()
  expected = films_lib.choose(rows, "oracle", 1)
  plain = [entry for entry in shown if entry["kind"] != "correction"]
  assert [entry["file"] for entry in plain] == [one.file for one in expected]
  files = sorted((tmp_path / "videos").glob("*.mp4"))
  assert [f.name for f in files] == sorted(entry["file"] for entry in shown)
  assert set(shown[0]) == {
    "file", "kind", "policy", "unit", "scene_seed", "attempt", "condition", "caption",
  }  # fmt: skip
  for path in files:
    with av.open(str(path)) as video:
      frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
    assert frames[0].shape == (64 + 22, 64, 3) and 2 < len(frames) / 25 < 20
    assert np.std(frames[-1][:64]) > 5

  written = {path.name: path.read_bytes() for path in files}
  files[0].unlink()
  monkeypatch.setattr(trials_lib, "run_trial", None)  # the pushes are not made again
  assert film() == shown
  assert {path.name: path.read_bytes() for path in files} == written


def test_a_film_of_an_attempt_tells_its_steps_the_push_and_the_outcome(
  setting, tmp_path, monkeypatch
):
  _, (trial,) = setting
  one = row(condition="push=0.4", attempt=0, repetition=0, policy="oracle")
  monkeypatch.setattr(Captions, "kept", [])
  monkeypatch.setattr(films_lib.video, "VideoRecorder", Captions)
  (told, *_) = trials_lib.run_trial(trial)
  path = tmp_path / "a.mp4"
  films_lib._shoot(
    films_lib._Reel(trial, (({**one, "success": told["success"]}, path),), 64)
  )
  assert path.exists()
  first, *_, last = Captions.kept
  assert first == "attempt 1: the scene before"
  assert last.startswith("attempt 1: success" if told["success"] else "attempt 1: fail")
  steps = [text for text in Captions.kept if ", step " in text]
  assert steps[0] == "attempt 1, step 1/4: above"
  assert [text.endswith("; pushed") for text in steps[:2]] == [False, True]

  other = {**one, "success": not told["success"]}
  films_lib._shoot(films_lib._Reel(trial, ((other, path),), 64))
  assert not path.exists()  # a film of something else than its name says
