"""For all tests: a GL backend is chosen before anything imports MuJoCo."""

from envs import rendering

rendering.choose_backend()
