"""Repositories of Bluesky accounts as their servers export them: a CAR file of a commit, a tree and records.

Written after https://atproto.com/specs/repository: how deep an entry stands in the tree is told by its key's hash.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import libipld

DID = "did:plc:annaaaaaaaaa"
Entry = tuple[bytes, bytes]  # key, CID of the record


def varint(number: int) -> bytes:
    """Unsigned LEB128."""
    found = b""
    while number >= 0x80:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def cid(data: bytes) -> bytes:
    """Version 1, DAG-CBOR, SHA2-256."""
    return b"\x01\x71\x12\x20" + hashlib.sha256(data).digest()


def level(key: bytes) -> int:
    """Half the zero bits that its hash begins with."""
    bits = f"{int.from_bytes(hashlib.sha256(key).digest()):0256b}"
    return (len(bits) - len(bits.lstrip("0"))) // 2


class Blocks:
    """Blocks by CID, in the order in which they were made."""

    def __init__(self) -> None:
        self.of: dict[bytes, bytes] = {}

    def add(self, value: Any) -> bytes:
        data = libipld.encode_dag_cbor(value)
        self.of[cid(data)] = data
        return cid(data)

    def tree(self, entries: list[Entry], depth: int) -> bytes | None:
        """The node of these entries whose own ones are of a level, with what stands between them below."""
        if not entries:
            return None
        if depth < 0:
            raise ValueError(entries)
        own = [place for place, (key, _) in enumerate(entries) if level(key) == depth]
        if not own:
            return self.tree(entries, depth - 1) if depth else None
        parts = [
            entries[start:end] for start, end in zip([0, *(p + 1 for p in own)], [*own, len(entries)], strict=True)
        ]
        below = [self.tree(part, depth - 1) for part in parts]
        node: dict[str, Any] = {"l": below[0], "e": []}
        before = b""
        for place, right in zip(own, below[1:], strict=True):
            key, record = entries[place]
            shared = next((i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), len(before))
            node["e"].append({"p": shared, "k": key[shared:], "v": record, "t": right})
            before = key
        return self.add(node)

    def car(self, root: bytes) -> bytes:
        header = libipld.encode_dag_cbor({"roots": [root], "version": 1})
        sections = [varint(len(header)) + header]
        return b"".join(sections + [varint(len(key) + len(data)) + key + data for key, data in self.of.items()])


def repository(records: Mapping[str, Any], did: str = DID, without: tuple[str, ...] = ()) -> bytes:
    """A CAR file of records by key (`app.bsky.feed.post/3ka`); the blocks of some may be missing."""
    blocks = Blocks()
    entries = [(key.encode(), blocks.add(value)) for key, value in sorted(records.items())]
    data = blocks.tree(entries, max((level(key) for key, _ in entries), default=0)) or blocks.add({"l": None, "e": []})
    root = blocks.add({"did": did, "version": 3, "data": data, "rev": "3kr", "prev": None, "sig": b"signed"})
    for key, record in entries:
        if key.decode() in without:
            del blocks.of[record]
    return blocks.car(root)
