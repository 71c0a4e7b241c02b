"""Measuring policies: attempts in the cell, and sums over their rows.

`policies` makes a policy from its name, `conditions` a change of the cell from
NAME=AMOUNT. `trials` runs a policy in a few bins and returns rows, on this machine or
on a `cluster`; `scores` sums rows up; `replay` repeats a trial exactly; `seeds` divides
scene seeds by purpose. `open_loop_policy` is the policy of the open-loop network.
"""
