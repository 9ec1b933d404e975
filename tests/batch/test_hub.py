"""Data sets of the Hugging Face hub, read by its own library from a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

REVISION = "0123456789" * 4
ROWS = [{"query": f"question {number}", "images": [f"{number}.png"]} for number in range(30)]
CARD = f"""---
dataset_info:
  splits:
  - name: train
    num_bytes: 1
    num_examples: {len(ROWS)}
---
"""
FILES = {"README.md": CARD, "train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS)}
READ = """
import json, sys
from vlm_run.batch.sources import open_dataset
from vlm_run.errors import VlmRunError

for name in sys.argv[1:]:
    try:
        data = open_dataset(name, seed=3 if "#" in name else None)
    except VlmRunError as error:
        print(json.dumps(str(error)))
        continue
    rows, again = ([row for _, row in data.rows()] for _ in range(2))
    print(json.dumps([rows, again, data.identity, data.total, data.directory]))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as reading the data set `user/set` takes."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        file = path.partition(f"/datasets/user/set/resolve/{REVISION}/")[2]
        if path == f"/api/datasets/user/set/tree/{REVISION}":
            tree = [
                {"type": "file", "oid": "0" * 40, "size": len(text), "path": name}
                for name, text in FILES.items()
            ]
            self._answer(json.dumps(tree))
        elif path.startswith("/api/datasets/user/set/tree/"):
            self._answer("{}", 404, "EntryNotFound")
        elif path.startswith("/api/datasets/user/set"):
            self._answer(json.dumps({"id": "user/set", "sha": REVISION}))
        elif file in FILES:
            self._answer(FILES[file])
        else:
            self._answer(
                "{}", 404, "EntryNotFound" if path.startswith("/datasets/user/set/") else "RepoNotFound"
            )

    do_HEAD = do_GET

    def _answer(self, text: str, status: int = 200, error: str = "") -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(text)),
            "ETag": f'"{hash(text):040}"',
            "X-Repo-Commit": REVISION,
            "X-Error-Code": error,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def read(hub: str, home: Path, *names: str) -> list[Any]:
    """What is found under each name, in a process whose library knows this hub alone."""
    # `datasets` imports torch if it may, which takes longer than all that is tested here.
    env = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "USE_TORCH": "0"}
    done = subprocess.run(
        [sys.executable, "-c", READ, *names],
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Retrying" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_data_set_is_streamed_or_drawn_from_at_one_revision(hub: str, tmp_path: Path) -> None:
    whole, drawn, unknown, malformed = read(
        hub, tmp_path, "user/set", "user/set#5", "coco-en-2-mini#100", "no..name"
    )
    assert isinstance(whole, list), whole
    rows, again, identity, total, directory = whole
    assert rows == again == ROWS
    assert identity == {"hub": "user/set", "revision": REVISION}
    assert total == len(ROWS)
    assert directory is None  # its rows name no files of this machine
    rows, again, identity, total, _ = drawn
    assert rows == again
    assert total == len(rows) == 5
    assert all(row in ROWS for row in rows)
    assert rows != ROWS[:5]
    assert identity["seed"] == 3
    assert "there is no dataset 'coco-en-2-mini' on the Hugging Face hub" in unknown
    assert "names that ms-swift registers" in unknown
    assert "there is no dataset 'no..name'" in malformed


def test_a_hub_that_is_not_reached_is_told_at_once(tmp_path: Path) -> None:
    (error,) = read("http://127.0.0.1:9", tmp_path, "coco-en-2-mini#100")
    assert "the Hugging Face hub cannot be reached" in error
    assert "names that ms-swift registers" in error
