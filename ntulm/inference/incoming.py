"""Rows to `Posts`, those that are none counted and named; ids of posts that come without one.

Library of the commands that use a model (`ntulm/use/`). Needs pyarrow alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import Any, NamedTuple

from ntulm.errors import UserError
from ntulm.inference.directory import Settings
from ntulm.inference.reading import read_posts
from ntulm.inference.rows import Fault, Part
from ntulm.posts import Posts
from ntulm.printable import printable

NAMED_FAULTS = 20  # as many are named one by one; all are counted
_PLACE = re.compile(r"posts\[\d+\](?:\.(\w+))?")


class Incoming(NamedTuple):
    """Posts of a part of the input, and its rows that are none."""

    posts: Posts
    faults: list[Fault]
    share: float | None  # of the input that has been read
    kept: list[int]  # places of the posts among the rows of the part


def posts_of(part: Part, settings: Settings) -> Incoming:
    """The rows of a part as the model reads posts."""
    rows = [row | {"post_id": derived_id(row)} if row.get("post_id") in (None, "") else row for row in part.rows]
    faults, kept = list(part.faults), list(range(len(rows)))
    try:
        posts = read_posts(rows, settings.scheme, settings.source)
    except UserError:
        kept = []
        for place, (row, where) in enumerate(zip(rows, part.places, strict=True)):
            try:
                read_posts([row], settings.scheme, settings.source)
            except UserError as error:
                faults.append(Fault(where, _PLACE.sub(lambda found: found[1] or "", str(error), count=1).lstrip(": ")))
            else:
                kept.append(place)
        posts = read_posts([rows[place] for place in kept], settings.scheme, settings.source)
    return Incoming(posts, faults, part.share, kept)


def derived_id(row: dict[str, Any]) -> str:
    """A stable id of a post without one, from what it says: 80 bits, as in the corpus."""
    said = [str(row[name]) for name in ("author", "created_at", "text") if row.get(name) is not None]
    return "x" + sha256("\x1f".join(said).encode("utf-8", "replace")).hexdigest()[:20]


def fingerprints(posts: Posts) -> Iterator[int]:
    """64 bits of all that a model sees of each post: where they are the same, so is the vector."""
    for text, ntus in zip(posts.texts, posts.ntus.to_pylist(), strict=True):
        seen = [text, *(f"{ntu['role']}:{ntu['key']}" for ntu in ntus)]
        yield int.from_bytes(blake2b("\0".join(seen).encode(), digest_size=8).digest(), "little")


@dataclass
class Faults:
    """The rows of an input that cannot be read: all counted, the first ones named."""

    count: int = 0
    named: list[Fault] = field(default_factory=list)

    def add(self, faults: list[Fault]) -> None:
        """Some more."""
        self.count += len(faults)
        self.named += faults[: NAMED_FAULTS - len(self.named)]

    @property
    def first(self) -> str:
        """The first one, where there is any."""
        return f"{self.named[0].where}: {self.named[0].reason}" if self.named else ""

    def lines(self) -> list[str]:
        """What to say of them: nothing where there are none."""
        if not self.count:
            return []
        said = [f"  {printable(fault.where)}: {printable(fault.reason)}" for fault in self.named]
        if self.count > len(self.named):
            said.append(f"  and {self.count - len(self.named):,} more")
        return [f"{self.count:,} rows could not be read:", *said]
