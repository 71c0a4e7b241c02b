"""Training: the loop and its parts.

`loop.Fit` trains a network on batches. `train_config` builds its configuration,
`input_spec` says what the network sees (whole images, or `patch_inputs`), `curriculum`
makes the batches of each phase, `devices` joins processes and accelerators, `stopping`
ends a run after it is saved, `meter` sums up a window of steps, `training_log` records
it, for `trackers` too, `held_out_evaluation` and `held_out_report` judge the network on
held-out samples.
"""
