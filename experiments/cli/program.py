"""Runs an absl program: flags, one-line errors, exit status.

A program is `main(_)` and `define_flags()`, started by `run(main, define_flags)`.
Importing a program defines no flag, so that programs can call each other's functions.
"""

import logging as standard_logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from experiments.cli.commands import record_command, this_program
from experiments.cli.errors import UserError, message_for_user, stop
from experiments.cli.settings import check_overrides


def run(
  main: Callable[[Sequence[str]], Any],
  define_flags: Callable[[], None] | None = None,
) -> NoReturn:
  """Runs an absl program. User errors print one line and end with status 1.

  The command line is recorded in the folder that --workdir names, unless `main` returns
  False: it made nothing there.

  Status 2 means that the command line itself was wrong, 130 that Ctrl-C came.
  """
  if define_flags is not None:
    define_flags()
  flags.DEFINE_bool("traceback", False, "Show the whole traceback of an error.")
  quieten_libraries()
  _show_in_help()

  def guarded(argv: Sequence[str]) -> Any:
    try:
      if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; options begin with --")
      result = main(argv)
      if result is not False:
        _record()
      return None if isinstance(result, bool) else result  # True would be status 1
    except KeyboardInterrupt:
      stop("interrupted; the same command continues where it was", 130)
    except Exception as error:
      line = message_for_user(error)
      if line is None or flags.FLAGS.traceback:
        raise
      stop(line)

  app.run(guarded, flags_parser=_parse_flags)
  sys.exit(0)  # app.run has ended the process already; this tells the type checker


def _record() -> None:
  """Writes down the command line where the program's results are."""
  workdir = flags.FLAGS["workdir"].value if "workdir" in flags.FLAGS else ""
  if workdir and Path(workdir).is_dir():
    record_command(workdir, this_program(), sys.argv[1:])


def _show_in_help() -> None:
  """Has --help show the flags that modules define which the program only calls."""
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    for flag in defined:
      if module.startswith("experiments.") or flag.name == "config":
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def quieten_libraries() -> None:
  """Hides what Orbax says of healthy runs; worker processes call it for themselves."""
  # Of the logger, not its handler: worker processes have another one.
  logging.get_absl_logger().addFilter(
    lambda record: (
      "orbax" not in record.pathname
      or record.levelno >= standard_logging.ERROR
      or logging.get_verbosity() >= logging.INFO
    )
  )


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
  check_overrides(argv)
  try:
    remaining = flags.FLAGS(argv)
  except flags.Error as error:
    stop(f"{error}. Run with --help to see the flags.", 2)
  # Libraries report every file they touch; --verbosity=0 shows it.
  verbosity = flags.FLAGS["verbosity"]
  if verbosity.using_default_value:
    verbosity.value = logging.WARNING
    verbosity.using_default_value = False  # else absl raises it to INFO
  return remaining
