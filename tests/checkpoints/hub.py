"""A hub on this machine that answers as much of the APIs of Hugging Face and ModelScope as downloads need."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0de"


@dataclass
class StandInHub:
    """The repositories of the hub, and what it was asked for.

    Attributes:
        url: Its address.
        repositories: Files by name, by repository.
        gated: Repositories whose terms must be accepted.
        served: Names of the files that were downloaded.
    """

    url: str
    repositories: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    served: list[str] = field(default_factory=list)

    def environment(self, cache: str) -> dict[str, str]:
        """Variables that lead the libraries of both hubs here, and their caches to `cache`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": f"{cache}/huggingface",
            "HF_HUB_OFFLINE": "0",
            "MODELSCOPE_ENDPOINT": self.url,
            "MODELSCOPE_CACHE": f"{cache}/modelscope",
        }


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Run a hub on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path, query = unquote(url.path), parse_qs(url.query)
            if found := re.fullmatch(r"/api/v1/models/(\w[^/]*/[^/]+)/repo/files", path):
                self._modelscope_files(found[1])
            elif found := re.fullmatch(r"/api/v1/models/(\w[^/]*/[^/]+)/repo", path):
                self._file(found[1], query["FilePath"][0])
            elif found := re.fullmatch(r"/models/(\w[^/]*/[^/]+)/resolve/[^/]+/(.+)", path):
                self._file(found[1], found[2])
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
                self._huggingface_info(found[1])
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
                self._huggingface_tree(found[1])
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                self._file(found[1], found[2])
            else:
                self._send(404, b"{}")

        def _huggingface_info(self, repository: str) -> None:
            if repository in hub.gated:
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            elif repository not in hub.repositories:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            else:
                names = [{"rfilename": name} for name in hub.repositories[repository]]
                info = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": names}
                self._send(200, json.dumps(info).encode())

        def _huggingface_tree(self, repository: str) -> None:
            files = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in hub.repositories[repository].items()
            ]
            self._send(200, json.dumps(files).encode())

        def _modelscope_files(self, repository: str) -> None:
            if repository not in hub.repositories:
                self._send(404, b'{"Code": 10010205001, "Success": false, "Message": "not found"}')
                return
            files = [
                {
                    "Path": name,
                    "Name": name.rpartition("/")[2],
                    "Type": "blob",
                    "Size": len(content),
                    "Sha256": hashlib.sha256(content).hexdigest(),
                    "Revision": COMMIT,
                    "CommittedDate": 1_700_000_000,
                }
                for name, content in hub.repositories[repository].items()
            ]
            data = {"Code": 200, "Success": True, "Data": {"Files": files, "TotalCount": len(files)}}
            self._send(200, json.dumps(data).encode())

        def _file(self, repository: str, name: str) -> None:
            content = hub.repositories.get(repository, {}).get(name)
            if content is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            if self.command == "GET":
                hub.served.append(name)
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._send(200, content, {"X-Repo-Commit": COMMIT, "ETag": tag})

        def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = StandInHub(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
