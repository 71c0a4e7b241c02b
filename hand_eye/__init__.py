"""Hand-eye coordination: predict whether a motion will end in a grasp, and servo by it.

Levine et al., "Learning Hand-Eye Coordination for Robotic Grasping with Deep Learning
and Large-Scale Data Collection", 2016. JAX; no simulator and no dataset in here.
"""
