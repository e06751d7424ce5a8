"""How far a long command is, on standard error: posts done, posts per second, time left."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

TERMINAL_SECONDS, LOG_SECONDS = 1.0, 30.0  # between two lines


class Progress:
    """Said from time to time; a terminal has one line that changes, a log has lines."""

    def __init__(self, what: str) -> None:
        self.what, self.posts, self.start = what, 0, time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.said = self.start if not self.terminal else 0.0
        self.shown = False

    def add(self, posts: int, share: float | None) -> None:
        """Some more posts are done; `share` of the input has been read, where that is known."""
        self.posts += posts
        now = time.monotonic()
        if now - self.said >= (TERMINAL_SECONDS if self.terminal else LOG_SECONDS):
            self.said, self.shown = now, True
            line = f"{self.what}: {progress_line(self.posts, now - self.start, share)}"
            sys.stderr.write(f"\r\x1b[K{line}" if self.terminal else f"{line}\n")
            sys.stderr.flush()

    def done(self) -> None:
        """Free the line for what comes next."""
        if self.terminal and self.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    @property
    def rate(self) -> float:
        """Posts per second so far."""
        return self.posts / max(time.monotonic() - self.start, 1e-9)


def progress_line(posts: int, seconds: float, share: float | None) -> str:
    """E.g. `12,000 posts, 410 per second, 60 %, 0:00:20 left`."""
    said = f"{posts:,} posts, {posts / max(seconds, 1e-9):,.0f} per second"
    if share:
        said += f", {share:.0%}, {timedelta(seconds=round(seconds * (1 - share) / share))} left"
    return said
