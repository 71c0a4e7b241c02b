"""Event files that TensorBoard shows, written without TensorFlow or any other package.

An event file is a sequence of records, each a length, a masked CRC-32C of it, a
protocol buffer `Event` and a masked CRC-32C of that. The few fields that are needed
are encoded here by hand.
"""

import io
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5


class EventFile:
  """Appends scalars and images to a new event file; whole when a call returns."""

  def __init__(self, folder: str | Path, begin: int = 0):
    """Begins a file in `folder`; what older ones say of steps after `begin` is void."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
    files = len(list(folder.glob("events.out.tfevents.*")))
    self.path = folder / f"events.out.tfevents.{stamp}.{files}"
    self._write(0, [_field(3, _BYTES, b"brain.Event:2")])
    # A session that starts at a step makes TensorBoard drop later steps of before.
    self._write(begin + 1, [_field(7, _BYTES, _field(1, _VARINT, 1))])

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes numbers of a step by name; `a/b` is b of the group a."""
    self._summary(
      step, ((name, _field(2, _FLOAT, float(value))) for name, value in values.items())
    )

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes uint8[H, W, 3]."""
    height, width = image.shape[:2]
    body = b"".join(
      [
        _field(1, _VARINT, height),
        _field(2, _VARINT, width),
        _field(3, _VARINT, 3),  # RGB
        _field(4, _BYTES, encode_png(image)),
      ]
    )
    self._summary(step, [(name, _field(4, _BYTES, body))])

  def _summary(self, step: int, values: Iterable[tuple[str, bytes]]) -> None:
    summary = b"".join(
      _field(1, _BYTES, _field(1, _BYTES, name.encode()) + value)
      for name, value in values
    )
    self._write(step, [_field(5, _BYTES, summary)])

  def _write(self, step: int, fields: list[bytes]) -> None:
    event = b"".join(
      [_field(1, _DOUBLE, time.time()), _field(2, _VARINT, step), *fields]
    )
    length = struct.pack("<Q", len(event))
    with open(self.path, "ab") as stream:
      stream.write(length + _masked(length) + event + _masked(event))


def encode_png(image: np.ndarray) -> bytes:
  """The PNG file of uint8[H, W, 3]."""
  png = io.BytesIO()
  Image.fromarray(image).save(png, format="PNG")
  return png.getvalue()


def _field(number: int, kind: int, value: Any) -> bytes:
  head = _varint(number << 3 | kind)
  if kind == _VARINT:
    return head + _varint(value)
  if kind == _BYTES:
    return head + _varint(len(value)) + value
  return head + struct.pack("<d" if kind == _DOUBLE else "<f", value)


def _varint(value: int) -> bytes:
  out = bytearray()
  while value > 0x7F:
    out.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*out, value])


def _masked(data: bytes) -> bytes:
  crc = crc32c(data)
  rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
  return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
  """CRC-32C (Castagnoli)."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
  return crc ^ 0xFFFFFFFF


def _table() -> list[int]:
  table = []
  for entry in range(256):
    for _ in range(8):
      entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
    table.append(entry)
  return table


_TABLE = _table()
