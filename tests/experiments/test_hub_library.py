"""`huggingface_hub` itself, against a small server of its protocol on this machine."""

import base64
import http.server
import json
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from data_pipeline import source
from experiments import hub
from tests.data_pipeline import synthetic

huggingface_hub = pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.slow
SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
  """One repository in memory, `server.files`: {path: bytes}."""

  protocol_version = "HTTP/1.1"

  def do_POST(self):
    data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
    place = urlsplit(self.path).path
    if place.endswith("/preupload/main"):
      names = [file["path"] for file in json.loads(data)["files"]]
      regular = {"uploadMode": "regular", "shouldIgnore": False}
      self.answer({"files": [{"path": name, **regular} for name in names]})
    elif place.endswith("/commit/main"):
      self.commit([json.loads(line) for line in data.splitlines()])
    elif place == "/api/repos/create":
      self.answer({"url": f"http://{self.headers['Host']}/datasets/me/grasps"})
    else:  # The YAML of a card is looked at.
      self.answer({"errors": [], "warnings": []})

  def commit(self, lines):
    for line in lines:
      if line["key"] == "file":
        content = base64.b64decode(line["value"]["content"])
        self.server.files[line["value"]["path"]] = content
      elif line["key"] == "deletedFile":
        del self.server.files[line["value"]["path"]]
    address = f"http://{self.headers['Host']}/datasets/me/grasps/commit/{SHA}"
    self.answer({"success": True, "commitUrl": address, "commitOid": SHA})

  def do_GET(self):
    place = urlsplit(self.path).path
    files = self.server.files
    if "/resolve/" in place:
      self.answer(files[place.split(f"/resolve/{SHA}/")[1]])
    elif "/tree/" in place:
      assert parse_qs(urlsplit(self.path).query)["recursive"]
      self.answer(
        [
          {"type": "file", "path": name, "size": len(files[name]), "oid": SHA}
          for name in files
        ]
      )
    else:
      self.answer(
        {"id": "me/it", "sha": SHA, "siblings": [{"rfilename": f} for f in files]}
      )

  do_HEAD = do_GET

  def answer(self, content):
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    self.send_response(200)
    self.send_header("Content-Length", str(len(data)))
    self.send_header("Content-Type", "application/json")
    self.send_header("X-Repo-Commit", SHA)
    self.send_header("ETag", f'"{hash(data)}"')
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(data)

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
  made.files = {}
  threading.Thread(target=made.serve_forever, daemon=True).start()
  yield made
  made.shutdown()
  made.server_close()


def test_a_dataset_goes_through_the_library_and_back(server, tmp_path, monkeypatch):
  monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
  api = huggingface_hub.HfApi(
    endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_of_nobody"
  )
  directory = synthetic.write_synthetic_dataset(tmp_path / "data")
  stale = "train/1.0.0/train-train.array_record-00000-of-00009"
  server.files = {stale: b"of an earlier push", "notes.txt": b"the owner's"}
  name = hub.push(directory, "me/grasps", api=api)
  assert stale not in server.files and "notes.txt" in server.files
  (folder,) = hub.pull(name, tmp_path / "out", api=api).datasets
  assert len(source.open_dataset(folder)) == 24
  for file in directory.rglob("*"):
    if file.is_file():
      inside = file.relative_to(directory)
      assert (folder / inside).read_bytes() == file.read_bytes()
