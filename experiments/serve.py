r"""Serves an exported policy to robots over a local socket.

  python -m experiments.serve --policy=runs/demo/policy.hep --socket=/tmp/policy.sock
  python -m experiments.serve --policy=runs/demo/policy.hep --port=7400

One process with one device serves a fleet with controllers in any language:
docs/wire_format.md describes the wire format, `hand_eye.deploy.client` is a client. The
server listens on this machine only. A Unix socket is open to its user alone, a port to
everyone on the machine.
"""

import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.control import exported
from experiments.control import server as server_lib
from hand_eye.deploy import wire

_LOOPBACK = "127.0.0.1"


def address_of(socket_path: str, port: int) -> wire.Address:
  """The address that the two flags name.

  Raises:
    UserError: both or none is given, or it is none.
  """
  if bool(socket_path) == (port >= 0):
    raise cli.UserError("expected either --socket, a path, or --port, a number")
  if socket_path:
    if len(socket_path.encode()) > 100:
      raise cli.UserError(
        f"--socket={socket_path}: expected a path of at most 100 bytes"
      )
    return str(Path(socket_path))
  if port > 65535:
    raise cli.UserError(f"--port={port}: expected 0 to 65535; 0 chooses one")
  return _LOOPBACK, port


def define_flags() -> None:
  exported.define_flags()
  flags.DEFINE_string("socket", "", "Path of a Unix socket to listen at.")
  flags.DEFINE_integer("port", -1, "Port of this machine to listen at; 0: any.")
  flags.DEFINE_integer("max_clients", 32, "Robots at the same time.", lower_bound=1)
  flags.DEFINE_float("max_age_ms", 500.0, "Older images are answered by HOLD.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  address = address_of(args.socket, args.port)
  if not 0 < args.max_age_ms < float("inf"):
    raise cli.UserError(f"--max_age_ms={args.max_age_ms}: expected more than 0")
  policy = exported.load(max_age=args.max_age_ms / 1e3)
  limits = server_lib.Limits(clients=args.max_clients, waiting=args.max_clients)
  with server_lib.Server(policy, address, limits) as server:
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
      signal.signal(name, lambda *_: stop.set())
    server.start()
    where = server.address
    shown = where if isinstance(where, str) else f"{where[0]}:{where[1]}"
    print(
      f"Serving {args.policy} at {shown}, images of {policy.frame_size} pixels; one"
      f" iteration needs {1e3 * policy.needs:.0f} ms with {policy.engine or 'JAX'}."
      " Ctrl-C ends it.",
      flush=True,
    )
    stop.wait()
    print(", ".join(f"{name} {count}" for name, count in server.counts().items()))


if __name__ == "__main__":
  cli.run(main, define_flags)
