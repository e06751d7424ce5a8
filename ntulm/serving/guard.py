"""What stands between the network and the routes: key, host, size, number of requests, counts, log, last resort.

The log has method, path, status and time of a request: no body, no text, no query, no header.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import traceback
from hashlib import sha256
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ntulm.serving.address import is_loopback
from ntulm.serving.faults import MISTAKE, Fault, overloaded
from ntulm.serving.limits import Limits
from ntulm.serving.metrics import OTHER, PATHS, Metrics

LOG = logging.getLogger("ntulm.serving")
OPEN = frozenset(["/health", "/ready", "/docs", "/openapi.json"])  # without a key
ANY_LOAD = OPEN | {"/metrics"}  # answered under any load, and nothing of their bodies is read
ASSETS = "/static-offline-docs/"
DIGITS = 18  # of a length, that are read


class Guard:
    """Wraps the app."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, key: str | None) -> None:
        self.app = app
        self.limits = limits
        self.metrics = metrics
        self.digest = None if key is None else sha256(key.encode()).digest()
        self.answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's start and end."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, started = 0, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, noted)
        except Fault as fault:
            await fault.response()(scope, receive, noted)
        except Exception as error:  # the last resort: said without its message, which may hold a text
            LOG.error("%s at %s", type(error).__name__, _where(error))
            if not status:
                await MISTAKE.response()(scope, receive, noted)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        self._admit(headers, path)
        if path in ANY_LOAD or path.startswith(ASSETS):
            await self.app(scope, receive, send)
            return
        if self.answering >= self.limits.requests:
            raise overloaded(f"{self.answering} requests are being answered", 1)
        self._answers(1)
        try:
            body = await self._body(headers, receive)
            await self.app(scope, _given(body, receive), send)
        finally:
            self._answers(-1)

    def _answers(self, change: int) -> None:
        self.answering += change
        self.metrics.answering.set(self.answering)

    def _admit(self, headers: Headers, path: str) -> None:
        """Raises a Fault for a wrong key, or, where no key is wanted, for a host that a web page made up."""
        if self.digest is None:
            host = headers.get("host", "")
            bare = host if host.endswith("]") else host.rpartition(":")[0] or host
            if not is_loopback(bare.removeprefix("[").removesuffix("]")):
                raise Fault(421, "host: not this machine's; expected localhost or 127.0.0.1", "wrong_host")
        elif path not in OPEN and not path.startswith(ASSETS):
            kind, _, given = headers.get("authorization", "").partition(" ")
            digest = sha256(given.strip().encode("latin-1")).digest()  # the bytes as they came
            if not hmac.compare_digest(digest, self.digest) or kind.lower() != "bearer":
                message = "no key or a wrong one; expected the header `Authorization: Bearer KEY`"
                raise Fault(401, message, "invalid_api_key", {"WWW-Authenticate": "Bearer"})

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The body, read as far as its limit."""
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:DIGITS]) > self.limits.body:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                return await self._received(receive)
        except TimeoutError:
            raise Fault(408, f"the body took more than {self.limits.upload_seconds:g} s", "timeout") from None

    async def _received(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Fault(400, "the client left", "disconnected")
            part = message.get("body", b"")
            size += len(part)
            if size > self.limits.body:
                raise self._too_large()
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    def _too_large(self) -> Fault:
        message = f"the body has more than {self.limits.body:,} bytes; send fewer posts at a time"
        return Fault(413, message, "body_too_large", {"Connection": "close"})

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in PATHS else OTHER
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        LOG.info("%s %s %d %.1f ms", scope["method"], path, status, seconds * 1000)


def _given(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read already, then whatever comes."""
    waiting: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _where(error: BaseException) -> str:
    """The place in the code, without any value."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
