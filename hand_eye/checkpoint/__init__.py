"""Checkpoints that explain themselves, kept by Orbax.

Use it as `checkpoint.NAME`: a `Checkpointer` writes and restores those of a training
run, `load_policy` reads the weights that inference needs, `describe` what a checkpoint
says about itself, `scores` how good each one is.

A checkpoint is a folder `<directory>/<step>/` of four items:

  policy   averaged parameters and batch statistics: all that inference needs
  state    the rest of the `TrainState`
  info     JSON: format, purpose, network, experiment config, score, shapes of arrays
           and inputs, versions of the software
  data     JSON: the state of the data iterator

The best by score and the last are kept; of equal scores, the later one is the best.
Scores are read from `info`, so an interrupted run keeps the same checkpoints as an
uninterrupted one. Checkpoints are written in the background and renamed at the end, so
a killed process leaves no half checkpoint behind.

Folders that are not complete checkpoints (a copy that was cut short, something stray)
are skipped with a warning.
"""

from hand_eye.checkpoint.checkpointer import Checkpointer, Restored
from hand_eye.checkpoint.folder import best_of
from hand_eye.checkpoint.info import (
  FORMAT,
  OPEN_LOOP,
  SERVO,
  CheckpointError,
  UnreadableError,
  input_shapes,
  software_versions,
)
from hand_eye.checkpoint.policy import PolicyWeights, describe, load_policy, scores

__all__ = [
  "FORMAT",
  "OPEN_LOOP",
  "SERVO",
  "CheckpointError",
  "Checkpointer",
  "PolicyWeights",
  "Restored",
  "UnreadableError",
  "best_of",
  "describe",
  "input_shapes",
  "load_policy",
  "scores",
  "software_versions",
]
