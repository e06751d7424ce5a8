"""Known vulnerabilities: what is asked, what an answer says, and a service that gives none."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from deploy.advisories import UnreachableError, known

PACKAGES = [("a", "1.0"), ("b", "2.0+cpu")]


class Service(HTTPServer):
    """Answers with `answer`; what it was asked is in `asked`."""

    status, answer = 200, b""
    asked: Any = None


@pytest.fixture
def service():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            size = int(self.headers["Content-Length"])
            server.asked = json.loads(self.rfile.read(size))
            self.send_response(server.status)
            self.end_headers()
            self.wfile.write(server.answer)

        def log_message(self, *arguments):
            pass

    server = Service(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def address(service):
    return f"http://127.0.0.1:{service.server_port}/"


def test_names_and_versions_are_asked_for_and_ids_come_back(service):
    service.answer = json.dumps({"results": [{}, {"vulns": [{"id": "GHSA-2"}, {"id": "GHSA-1"}]}]}).encode()
    assert known(PACKAGES, address(service)) == {"b": ["GHSA-1", "GHSA-2"]}
    first, second = service.asked["queries"]
    assert first == {"package": {"ecosystem": "PyPI", "name": "a"}, "version": "1.0"}
    assert second["version"] == "2.0"


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"results": []}', b'{"results": [3, 4]}', b'{"results": [{}]}'])
def test_an_answer_that_cannot_be_read_is_none(service, answer):
    service.answer = answer
    with pytest.raises(UnreachableError):
        known(PACKAGES, address(service))


def test_an_error_and_silence_are_no_answer(service):
    service.status = 503
    with pytest.raises(UnreachableError, match="HTTPError"):
        known(PACKAGES, address(service))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError, match="URLError"):
        known(PACKAGES, f"http://127.0.0.1:{port}/")
