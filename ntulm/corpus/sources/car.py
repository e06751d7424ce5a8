"""Repositories of Bluesky accounts (CAR files, https://atproto.com/specs/repository) as lines of JSON.

Library of the sources; not a format: an account's export is opened like an archive, and its records become the events
that Jetstream would have sent, which the reader `bluesky` reads. Blocks are found by their hash and are verified by it;
one is held in memory at a time.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ROOTS = b"\xa2eroots"  # how the header begins behind its length: a map of two, `roots` first
HEADER_PLACES = range(1, 4)  # of a length of one to three bytes
SHA2_256 = 0x12
MOST_VARINT_BYTES = 9
LOST = "records that the file does not hold"

Buffer = Any  # bytes or an mmap: both are sliced into bytes


class DamagedError(ValueError):
    """The file is cut off, was changed, or is no account's repository."""


def is_car(start: bytes) -> bool:
    """Whether a file begins as a CAR file does."""
    return any(start.startswith(ROOTS, place) for place in HEADER_PLACES)


def events(content: Buffer, skipped: Counter[str]) -> Iterator[bytes]:
    """Every record of a repository as a line of JSON, in the order of its keys (collection and record key).

    Args:
        content: the file.
        skipped: counts the records whose blocks the file does not have: it may be the end of a repository alone.

    Raises:
        DamagedError: says where, or what is wrong.
    """
    blocks = _Blocks(content)
    commit = blocks.value(blocks.root)
    did = commit.get("did") if isinstance(commit, dict) else None
    if not isinstance(did, str) or not did.startswith("did:") or not isinstance(commit.get("data"), bytes):
        raise DamagedError("no repository of an account: its first block names no account and no tree")
    for key, cid in _records(blocks, commit["data"], skipped):
        collection, _, rkey = key.partition("/")
        if cid not in blocks.places:
            skipped[LOST] += 1
            continue
        try:
            record = blocks.value(cid)
        except DamagedError:
            raise
        except ValueError:  # no DAG-CBOR: the reader rejects the record
            record = None
        about = {"operation": "create", "collection": collection, "rkey": rkey, "record": record}
        line = json.dumps({"did": did, "kind": "commit", "commit": about}, default=_json)
        yield line.encode() + b"\n"


def _json(value: bytes) -> dict[str, str]:
    """Bytes as AT Protocol writes them in JSON; links are bytes too, and nothing here follows one."""
    return {"$bytes": base64.b64encode(value).decode()}


@dataclass
class _Blocks:
    """Where in a file which block lies, by the bytes of its CID."""

    content: Buffer
    root: bytes = b""
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size, place = _varint(self.content, 0)
        header = _decoded(self.content[place : place + size])
        roots = header.get("roots") if isinstance(header, dict) else None
        if not isinstance(roots, list) or len(roots) != 1 or not isinstance(roots[0], bytes):
            raise DamagedError("no repository of an account: its header has not one root")
        self.root = roots[0]
        place += size
        while place < len(self.content):
            size, start = _varint(self.content, place)
            end = start + size
            if end > len(self.content):
                raise DamagedError(f"cut off in the block at byte {place:,}")
            behind = _end_of_cid(self.content, start)
            if behind > end:
                raise DamagedError(f"damaged at byte {place:,}")
            self.places[self.content[start:behind]] = behind, end
            place = end

    def value(self, cid: bytes) -> Any:
        """What a block holds.

        Raises:
            DamagedError: the file has no such block, or not as its hash says.
            ValueError: it is no DAG-CBOR.
        """
        if cid not in self.places:
            raise DamagedError("a block of its tree is missing")
        start, end = self.places[cid]
        data = self.content[start:end]
        digest = cid[-hashlib.sha256().digest_size :]
        if cid[: -len(digest)].endswith(bytes([SHA2_256, len(digest)])) and hashlib.sha256(data).digest() != digest:
            raise DamagedError(f"the block at byte {start:,} is not as its hash says")
        return _decoded(data)


def _records(blocks: _Blocks, root: bytes, skipped: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """Key and CID of every record, in the order of the keys: a tree's left part, an entry, what lies right of it, …"""
    seen: set[bytes] = set()
    waiting: list[tuple[str, bytes] | bytes] = [root]
    while waiting:
        item = waiting.pop()
        if isinstance(item, tuple):
            yield item
            continue
        if item in seen:
            raise DamagedError("its tree has a part twice")
        seen.add(item)
        if item != root and item not in blocks.places:
            skipped["parts of the tree that the file does not hold"] += 1
            continue
        waiting.extend(reversed(list(_children(blocks.value(item)))))


def _children(node: Any) -> Iterator[tuple[str, bytes] | bytes]:
    """The entries of a node, and the nodes beside them; a key is told by what it shares with the one before."""
    try:
        if node["l"] is not None:
            yield bytes(node["l"])
        key = b""
        for entry in node["e"]:
            key = key[: entry["p"]] + bytes(entry["k"])
            yield key.decode("ascii"), bytes(entry["v"])
            if entry["t"] is not None:
                yield bytes(entry["t"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError("a block of its tree is none") from error


def _decoded(data: bytes) -> Any:
    import libipld

    try:
        return libipld.decode_dag_cbor(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _varint(content: Buffer, place: int) -> tuple[int, int]:
    """An unsigned LEB128 number and the place behind it."""
    number = 0
    for shift, byte in enumerate(content[place : place + MOST_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number, place + shift + 1
    raise DamagedError(f"damaged or cut off at byte {place:,}")


def _end_of_cid(content: Buffer, place: int) -> int:
    """The place behind a CID: version, codec, kind and size of the hash, the hash; of version 0 the hash alone."""
    if content[place : place + 2] == bytes([SHA2_256, 32]):
        return place + 34
    for _ in range(3):
        place = _varint(content, place)[1]
    size, place = _varint(content, place)
    return place + size
