"""The robot cell in MuJoCo: units, objects, scene, control, attempts, baselines.

Knows no network and no file format: a policy is a callable that is handed in.
"""
