#!/bin/sh
# orbax-checkpoint 0.12.8: saving an earlier step than the latest one.
#
# With step 10 on the disk, `CheckpointManager.save(6, ...)` writes nothing and returns
# False; nothing is raised. Whoever restores step 5 beside a later step and trains on
# loses every checkpoint up to there, unless the answer is read. `force=True` raises or
# writes: here it writes.
#
# Seen:
#   save(6): False, steps [5, 10]
#   save(6, force=True): True, steps [5, 6, 10]
set -eu
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import os
import numpy as np
import orbax.checkpoint as ocp

manager = ocp.CheckpointManager(os.path.abspath("run"))
save = lambda step, **more: manager.save(
  step, args=ocp.args.StandardSave({"x": np.zeros(2)}), **more)
save(5), save(10)
manager.wait_until_finished()
manager.restore(5, args=ocp.args.StandardRestore({"x": np.zeros(2)}))
said = save(6)
manager.wait_until_finished()
first = said, sorted(manager.all_steps())
forced = save(6, force=True)
manager.wait_until_finished()
second = forced, sorted(manager.all_steps())
print("save(6): {}, steps {}".format(*first))
print("save(6, force=True): {}, steps {}".format(*second))
assert first == (False, [5, 10]) and second == (True, [5, 6, 10])
PYTHON
