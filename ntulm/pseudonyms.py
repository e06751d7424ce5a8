"""Pseudonyms in the place of users, where `corpus.pseudonyms` asks for them: the one place that makes them.

The corpus, tasks, arriving posts and new posts all call it, so that one person has one pseudonym wherever a post is
read. A pseudonym is a keyed hash: who does not hold the key cannot tell whose it is, nor try names. The key is in the
environment alone, in NTULM_PSEUDONYM_KEY, and is written nowhere; `Reading.pseudonyms` holds its fingerprint, so that
another key is refused. Standard library only.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from ntulm.errors import UserError
from ntulm.text import Reading, renamed, user_key

VARIABLE = "NTULM_PSEUDONYM_KEY"
LEAST_LENGTH = 16  # of a key, in characters
SIZE = 10  # bytes of a pseudonym: one chance in a million of a collision among a billion users
REMEMBERED = 1 << 17  # names whose pseudonyms are kept: few names are most of those used

_ORIGIN = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9+.-]*://)?+(?:[^/?#@\s]*@)?+([^/?#@\s]+)")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


class Pseudonyms:
    """Pseudonyms by one key for what one source writes."""

    def __init__(self, key: str, reading: Reading) -> None:
        self._key = key.encode("utf-8", "surrogateescape")
        self._reading = reading
        self._remembered = lru_cache(REMEMBERED)(partial(self._hashed, "user"))
        self.fingerprint = self._hashed("fingerprint", "")

    def _hashed(self, purpose: str, value: str) -> str:
        message = f"{purpose}\0{value}".encode("utf-8", "surrogatepass")
        return base64.b32encode(hmac.digest(self._key, message, "sha256")[:SIZE]).decode().lower()

    def user(self, key: str) -> str:
        """The pseudonym of a user, from the key that posts would have without pseudonyms."""
        return self._remembered(key)

    def listed(self, what: str) -> str:
        """How a list that must name nobody writes a name or an id."""
        return self._hashed("forget", what)

    def post_id(self, post_id: str) -> str:
        """An id; one that may hold its author's name, as links do, is hashed too."""
        return self._hashed("post", post_id) if any(sign in post_id for sign in "/:@") else post_id

    def link(self, link: str) -> str:
        """A link without what stands behind its host: paths of profiles and posts hold names."""
        origin, scheme = _ORIGIN.match(link), _SCHEME.match(link)
        return f"{scheme[0] if scheme else ''}{origin[1]}/" if origin else ""

    def text(self, text: str) -> str:
        """A text with pseudonyms in its mentions, and its links without their paths."""
        return renamed(text, self._reading.mention_hosts, self._mentioned, self.link)

    def _mentioned(self, name: str) -> str:
        return self.user(user_key(name, self._reading.casefold_users))

    def fields(self, fields: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Columns of posts (those of `ntulm/ntus.py` and `post_id`) with pseudonyms; values can be null."""
        return {name: [self._of_field(name, value) for value in values] for name, values in fields.items()}

    def _of_field(self, name: str, value: Any) -> Any:
        change = self._changes().get(name)
        if change is None or value is None:
            return value
        return change(value) if isinstance(value, str) else list(dict.fromkeys(map(change, value)))

    def _changes(self) -> dict[str, Callable[[str], str]]:
        users = dict.fromkeys(("author", "reply_to", "quoted", "mentions"), self.user)
        return {**users, "text": self.text, "urls": self.link, "post_id": self.post_id}


def from_environment(reading: Reading) -> Pseudonyms:
    """Pseudonyms by the key of the environment.

    Raises:
        UserError: there is no key, or one that could be guessed.
    """
    key = os.environ.get(VARIABLE, "")
    if not key:
        raise UserError(
            f"{VARIABLE}: not in the environment; corpus.pseudonyms needs the key that users are hashed with"
        )
    if len(key) < LEAST_LENGTH:
        raise UserError(
            f"{VARIABLE}: {len(key)} characters; expected at least {LEAST_LENGTH}, as `openssl rand -hex 32` gives"
        )
    return Pseudonyms(key, reading)


def of(reading: Reading) -> Pseudonyms | None:
    """What hides the users of posts that are read like a corpus; None where that corpus has no pseudonyms.

    Raises:
        UserError: the environment has no key, or another one than the corpus was made with.
    """
    if reading.pseudonyms is None:
        return None
    own = from_environment(reading)
    if own.fingerprint != reading.pseudonyms:
        raise UserError(
            f"{VARIABLE}: another key (fingerprint {own.fingerprint}) than the corpus was made with "
            f"({reading.pseudonyms}); no user would be known"
        )
    return own
