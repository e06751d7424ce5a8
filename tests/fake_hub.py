"""A stand-in of the Hugging Face hub's HTTP interface on loopback: as much as pushing and loading a model ask of it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_made_up"


@dataclass
class Repository:
    """A model on the hub."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(self.commits).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The routes; `repositories` is set by `hub`."""

    repositories: dict[str, Repository]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def answer(self, status: int, body: bytes | dict | list = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        path = self.path.split("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            exists = name in self.repositories
            self.repositories.setdefault(name, Repository(asked.get("visibility") == "private"))
            return self.answer(409 if exists else 200, {"url": f"http://{self.headers['Host']}/{name}"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": file, "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self.answer(200, {"files": modes})
        assert "/commit/" in path, path
        repository = self.repositories[name]
        for line in body.decode().splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                repository.files[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
            elif operation["key"] == "deletedFile":
                del repository.files[operation["value"]["path"]]
        repository.commits += 1
        address = f"http://{self.headers['Host']}/{name}/commit/{repository.sha}"
        return self.answer(200, {"commitUrl": address, "commitOid": repository.sha, "success": True})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        repository = self.repositories.get(name)
        allowed = repository and (not repository.private or self.headers.get("Authorization") == f"Bearer {TOKEN}")
        if repository is None or not allowed:
            return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        if parts[0] == "api" and "tree" in parts:
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in sorted(repository.files.items())
            ]
            return self.answer(200, entries)
        if parts[0] == "api":
            siblings = [{"rfilename": path} for path in sorted(repository.files)]
            about = {"id": name, "modelId": name, "sha": repository.sha, "private": repository.private}
            return self.answer(200, about | {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0})
        content = repository.files.get("/".join(parts[4:]))
        if content is None:
            return self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=repository.sha)
        tag = hashlib.sha1(content).hexdigest()
        return self.answer(200, content, ETag=f'"{tag}"', X_Repo_Commit=repository.sha)


@contextmanager
def hub() -> Iterator[tuple[str, dict[str, Repository]]]:
    """Its address, and what it holds."""
    repositories: dict[str, Repository] = {}
    handler = type("Hub", (Handler,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", repositories
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
