"""The robot cell in MuJoCo: units, scene, control, attempts, baselines, protocols.

Knows no network and no file format: a policy is a callable that is handed in.
"""
