"""Opens the socket of a server; the path of a dead server is taken over."""

import os
import socket
import stat
from pathlib import Path

from experiments import cli
from hand_eye.deploy import wire

_BACKLOG = 128  # connections that wait to be accepted


def listen(address: wire.Address) -> socket.socket:
  """Returns a socket that listens; one of a Unix path is for this user alone.

  Raises:
    UserError: the address cannot be used.
  """
  unix = isinstance(address, str)
  listener = socket.socket(
    socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM
  )
  try:
    if isinstance(address, str):
      _remove_stale(address)
      before = os.umask(0o177)  # this user alone
      try:
        listener.bind(address)
      finally:
        os.umask(before)
    else:
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listener.bind(address)
    listener.listen(_BACKLOG)
  except OSError as error:
    listener.close()
    where = f"--socket={address}" if unix else f"--port={address[1]}"
    raise cli.UserError(f"{where} cannot be used: {error.strerror or error}") from (
      error
    )
  listener.settimeout(0.2)
  return listener


def _remove_stale(path: str) -> None:
  """Removes the socket of a server that is gone."""
  if not Path(path).exists():
    return
  if not stat.S_ISSOCK(os.stat(path).st_mode):
    raise cli.UserError(f"--socket={path} is there already, and is no socket")
  probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
  try:
    probe.settimeout(0.5)
    probe.connect(path)
  except OSError:
    os.unlink(path)
    return
  finally:
    probe.close()
  raise cli.UserError(f"--socket={path}: a server listens there already")
