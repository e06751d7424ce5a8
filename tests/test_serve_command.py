"""`ntulm serve` as a process: what it refuses to start with, and its signals."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny_model
from running_server import WAIT, until
from typer.testing import CliRunner

from ntulm.cli import app
from ntulm.errors import UserError
from ntulm.layout import Layout

ROOT = Path(__file__).parent.parent
TEXTS = ["we like it #so and so on"] * 200


@pytest.fixture
def directory(lm_project, tiny_backbone):
    """A model directory."""
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    return layout.model


def refusal(*options):
    """The mistake with which it does not start."""
    result = CliRunner().invoke(app, ["serve", *options])
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_what_cannot_be_served_is_one_line(directory, monkeypatch):
    model = str(directory)
    monkeypatch.delenv("NTULM_API_KEY", raising=False)
    assert "set NTULM_API_KEY in the environment" in refusal("--model", model, "--host", "0.0.0.0")
    assert refusal("--model", "nowhere").startswith("nowhere: no such directory")
    assert "--batch 0: expected a number above 0" in refusal("--model", model, "--batch", "0")
    monkeypatch.setenv("NTULM_API_KEY", "")
    assert "set NTULM_API_KEY in the environment" in refusal("--model", model, "--host", "0.0.0.0")
    monkeypatch.setenv("NTULM_API_KEY", "short")
    assert "expected 16 at least" in refusal("--model", model)
    monkeypatch.setenv("NTULM_API_KEY", "")
    (directory / "table.safetensors").unlink()
    assert "table.safetensors: not found" in refusal("--model", model)


class Process:
    """A server in a process of its own."""

    def __init__(self, directory):
        line = [sys.executable, "-m", "ntulm", "serve", "--model", str(directory), "--port", "0"]
        values = {name: value for name, value in os.environ.items() if name != "NTULM_API_KEY"}
        values |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(line, env=values, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.port = int(self.line(r"running on http://127\.0\.0\.1:(\d+)"))

    def _read(self):
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def line(self, pattern, count=1):
        """The first group of the count-th line that it writes with such words."""
        end = time.monotonic() + 2 * WAIT
        while time.monotonic() < end:
            found = [match for line in list(self.lines) if (match := re.search(pattern, line))]
            if len(found) >= count:
                return found[count - 1][1] if found[count - 1].groups() else found[count - 1][0]
            time.sleep(0.02)
        raise AssertionError("".join(self.lines))

    def embed(self):
        """The status of a large request."""
        return self.begin()()

    def begin(self):
        """Send the first half of a large request; what is returned sends the rest and gives status and vectors."""
        body = json.dumps({"input": TEXTS}).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        connection.putrequest("POST", "/v1/embeddings")
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body[: len(body) // 2])

        def finish():
            connection.send(body[len(body) // 2 :])
            response = connection.getresponse()
            return response.status, len(json.loads(response.read())["data"])

        return finish

    def answering(self):
        """How many requests it is answering."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        connection.request("GET", "/metrics")
        found = re.search(r"^ntulm_answering_requests (\S+)", connection.getresponse().read().decode(), re.M)
        return float(found[1]) if found else 0.0


@pytest.mark.slow
def test_sighup_loads_anew_and_sigterm_finishes_what_was_asked(directory):
    server = Process(directory)
    try:
        assert server.embed() == (200, 200)
        (directory / "reading.json").touch()
        server.process.send_signal(signal.SIGHUP)
        server.line(r"version (\w+), is in use")
        (directory / "config.json").rename(directory / "gone.json")
        server.process.send_signal(signal.SIGHUP)
        server.line(r"reload: the model in use stays: ")
        assert server.embed() == (200, 200)

        begun = [server.begin() for _ in range(3)]
        until(lambda: server.answering() == len(begun))
        server.process.send_signal(signal.SIGTERM)
        server.line("Shutting down")
        assert [finish() for finish in begun] == [(200, 200)] * 3
        assert server.process.wait(WAIT) == -signal.SIGTERM
        server.line("Finished server process")
    finally:
        server.process.kill()
        server.process.wait()
