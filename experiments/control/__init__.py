"""Exported policies in control of a cell or a fleet.

`exported` and `constraint_flags` load a policy from flags, `real_time` servos a
simulated cell whose clock does not wait, `server` answers many robots over a socket.
"""
