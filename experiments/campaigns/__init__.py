"""The parts of `python -m experiments.campaign`; WORKSPACE.md has a line on each."""
