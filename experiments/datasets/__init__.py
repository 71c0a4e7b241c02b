"""What the programs on datasets share.

`options` are the flags that choose datasets and parts of them, `counts` describes a
dataset, `dataset_figures` and `contact_sheet` draw it, `import_report` sums up an
import, `distances` names the ranges in which predictions are judged. `shard_tasks`
makes attempts in worker processes; `attempt_records` turns them into records.
"""
