"""One file per experiment; its docstring is the lab note.

A file defines `get_config()`, which returns a ConfigDict with the
sections

  network    the preset and overrides of its fields (hand_eye.network.NetworkConfig)
  collect    the fleet, its objects and how much it collects
  train      curriculum, batches, augmentation, optimizer
  servo      thresholds and sizes of the search (hand_eye.servo.ServoConfig)
  evaluate   how many attempts of which policies

Any field can be replaced on the command line: --config.train.batch_size=128.
An unknown field is an error.
"""
