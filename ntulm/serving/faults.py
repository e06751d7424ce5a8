"""What the server says when it does not answer: one form for all, that of OpenAI's interface."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.responses import JSONResponse


@dataclass
class Fault(Exception):  # noqa: N818 (an answer, not a mistake of the code)
    """A request that gets no answer."""

    status: int
    message: str  # what is wrong, where, what would be right
    code: str
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> JSONResponse:
        """As JSON: `{"error": {"message", "type", "code"}}`."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "code": self.code}
        return JSONResponse({"error": error}, self.status, self.headers)


MISTAKE = Fault(500, "a mistake of the server's own", "internal")


def overloaded(what: str, seconds: float) -> Fault:
    """503: come back after so many seconds."""
    headers = {"Retry-After": str(max(1, round(seconds)))}
    return Fault(503, f"{what}; try again later", "overloaded", headers)
