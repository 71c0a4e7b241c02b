"""The parts of `experiments.timed`: the machine, the time, the stages, what comes home.

The stages are the project's own programs, each in a process of its own that can be
stopped. Nothing here computes on a device.
"""
