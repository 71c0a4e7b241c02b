"""What every program shares: flags, one-line errors, work folders, rows, progress.

Use it as `cli.NAME`: `cli.run(main, define_flags)` starts a program, `cli.UserError` is
shown as one line, `cli.define_config` and `cli.build` turn a configuration file into
dataclasses, `cli.prepare_workdir`, `cli.check_same` and `cli.locked` guard a work
folder, `cli.JsonLines` appends rows to a file, `cli.progress` draws a bar.
"""

from experiments.cli.commands import record_command, recorded_commands
from experiments.cli.errors import PACKAGES, UserError, message_for_user, stop
from experiments.cli.folders import check_same, locked, prepare_workdir, require_folder
from experiments.cli.program import quieten_libraries, run
from experiments.cli.progress_bar import Stopwatch, progress
from experiments.cli.provenance import versions
from experiments.cli.rows import (
  JsonLines,
  check_tally,
  read_json,
  read_jsonl,
  rewrite_jsonl,
  tally,
  to_json,
  write_atomically,
  write_json,
)
from experiments.cli.settings import (
  CONFIGS,
  DEFAULT_CONFIG,
  build,
  config_arguments,
  define_config,
  load_config,
)
from experiments.cli.tables import table

__all__ = [
  "CONFIGS",
  "DEFAULT_CONFIG",
  "JsonLines",
  "PACKAGES",
  "Stopwatch",
  "UserError",
  "build",
  "check_same",
  "check_tally",
  "config_arguments",
  "define_config",
  "load_config",
  "locked",
  "message_for_user",
  "prepare_workdir",
  "progress",
  "quieten_libraries",
  "read_json",
  "read_jsonl",
  "record_command",
  "recorded_commands",
  "require_folder",
  "rewrite_jsonl",
  "run",
  "stop",
  "table",
  "tally",
  "to_json",
  "versions",
  "write_atomically",
  "write_json",
]
