#!/bin/sh
# array_record 0.8.6: how small a file can be.
#
# A file of one record of 10 bytes is as large as one of 100 records of 1,000 bytes:
# with group_size:1, files come in blocks of 64 KiB, and the footer has blocks of its
# own. Shards of a few small records are mostly padding.
#
# Seen:
#   1 x 10 bytes: 131072
#   100 x 1000 bytes: 196608
set -eu
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q array_record==0.8.6 absl-py==2.5.0 etils==1.14.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
from array_record.python.array_record_module import ArrayRecordWriter

def size(count, length):
  writer = ArrayRecordWriter("records", "group_size:1")
  for _ in range(count):
    writer.write(os.urandom(length))
  writer.close()
  return os.path.getsize("records")

small, large = size(1, 10), size(100, 1000)
print(f"1 x 10 bytes: {small}\n100 x 1000 bytes: {large}")
assert (small, large) == (131072, 196608)
PYTHON
