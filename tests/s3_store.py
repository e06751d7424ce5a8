"""An S3-compatible store on loopback (moto's server), and a connection to it that breaks."""

import contextlib
import hashlib
import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "results"
# Made up. One attempt of botocore, so that a broken connection is told in seconds; s3fs still tries five times.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "made-up-name",
    "AWS_SECRET_ACCESS_KEY": "made-up-password",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}
OBJECT = re.compile(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30})(\.dir)?$")
PIECE = 1 << 16  # bytes that go through the connection at once
BUFFER = 1 << 15  # bytes that the kernel may hold on the way
MEETING_BYTES = 100_000  # sent before who sends waits for the other one
MEETING_SECONDS = 300.0


@dataclass(frozen=True)
class Store:
    """The address of the server, and what lies in its bucket."""

    endpoint: str

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def names(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [row["Key"] for page in pages for row in page.get("Contents", [])]

    def content(self, name: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return body

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def objects(self, prefix: str) -> list[str]:
        """The objects that are named by their content."""
        return [name for name in self.names(prefix) if OBJECT.search(name)]

    def parts(self, prefix: str) -> int:
        """How many uploads in parts have no end."""
        return len(self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", []))

    def half(self, prefix: str) -> list[str]:
        """Of those, the ones whose content is another one."""
        named = {name: OBJECT.search(name) for name in self.objects(prefix)}
        return [
            name
            for name, match in named.items()
            if match and hashlib.md5(self.content(name)).hexdigest() != match[1] + match[2]
        ]


@contextmanager
def s3_store() -> Iterator[Store]:
    """A running server with an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        store = Store(f"http://127.0.0.1:{port}")
        store.client.create_bucket(Bucket=BUCKET)
        yield store
    finally:
        server.stop()


@dataclass
class Connection:
    """A way to the store that breaks for good after so many bytes in one direction, until it is mended."""

    target: tuple[str, int]
    listener: socket.socket
    sent_limit: int | None = None  # bytes to the store
    received_limit: int | None = None  # bytes from the store
    meeting: threading.Barrier | None = None  # where it waits for another connection in the middle of sending
    passed: dict[str, int] = field(default_factory=lambda: {"sent": 0, "received": 0})
    broken: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    open: set[socket.socket] = field(default_factory=set)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def break_after(self, sent: int | None = None, received: int | None = None) -> None:
        with self.lock:
            self.sent_limit, self.received_limit, self.broken = sent, received, False
            self.passed = {"sent": 0, "received": 0}

    def mend(self) -> None:
        self.break_after()

    def serve(self) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.broken:
                near.close()
                continue
            far = socket.create_connection(self.target)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            with self.lock:
                self.open |= {near, far}
            for source, target, name in ((near, far, "sent"), (far, near, "received")):
                threading.Thread(target=self._pass_on, args=(source, target, name), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                target.sendall(piece[: self._room(name, len(piece))])
                if self.broken:
                    break
                self._meet()
        self._close(source, target)

    def _meet(self) -> None:
        with self.lock:
            due = self.passed["sent"] > MEETING_BYTES
            meeting, self.meeting = (self.meeting, None) if due else (None, self.meeting)
        if meeting:
            meeting.wait(MEETING_SECONDS)

    def _room(self, name: str, wanted: int) -> int:
        """How many of the bytes still go through; the connection is broken where that is not all."""
        with self.lock:
            limit = self.sent_limit if name == "sent" else self.received_limit
            room = wanted if limit is None else min(wanted, limit - self.passed[name])
            self.passed[name] += room
            self.broken = self.broken or room < wanted
            return room

    def _close(self, *ends: socket.socket) -> None:
        with self.lock:
            doomed = set(self.open) if self.broken else set(ends)
            self.open -= doomed
        for end in doomed:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def breakable(store: Store) -> Iterator[Connection]:
    """A connection to the store."""
    host, port = store.endpoint.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection((host, int(port)), listener)
        thread = threading.Thread(target=connection.serve, daemon=True)
        thread.start()
        try:
            yield connection
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()
