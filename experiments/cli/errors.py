"""Errors that end a program with one line."""

import errno
import sys
from typing import NoReturn

PACKAGES = ("hand_eye", "envs", "data_pipeline", "experiments")


class UserError(Exception):
  """An error that the user can fix; shown as one line."""


def message_for_user(error: BaseException) -> str | None:
  """One line for errors that the user can fix, None for bugs.

  Errors of our own packages and of the operating system about files are the user's.
  """
  if type(error).__module__.split(".")[0] in PACKAGES:
    return " ".join(str(error).split())
  if isinstance(error, OSError) and error.errno is not None:
    where = f"{error.filename}: " if error.filename else ""
    advice = {
      errno.ENOSPC: "; free some space and run the same command again",
      errno.EACCES: "; choose a folder that you may write to",
      errno.EROFS: "; choose a folder that you may write to",
    }.get(error.errno, "")
    return f"{where}{error.strerror}{advice}"
  return None


def stop(message: str, status: int = 1) -> NoReturn:
  """Ends the program with one line on standard error."""
  print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
  sys.exit(status)
