"""Repositories of Bluesky accounts: opened like archives, read as Jetstream would have told of their records."""

import gzip
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import libipld
import pytest
import test_sources_bluesky as bluesky
from hypothesis import given, settings
from hypothesis import strategies as st
from repositories import DID, Blocks, cid, repository, varint

from ntulm.corpus.records import read_export
from ntulm.corpus.sources import car, formats
from ntulm.errors import UserError

POST = "app.bsky.feed.post/"
TEXT = "hello @bob.example #cats"
FACETS = [bluesky.facet(TEXT, "#cats", tag="cats"), bluesky.facet(TEXT, "@bob.example", did=bluesky.BOB)]
RECORDS = {
    "app.bsky.actor.profile/self": {"$type": "app.bsky.actor.profile", "displayName": "Ann"},
    "app.bsky.feed.like/3kd": bluesky.subject("like"),
    f"{POST}3ka": bluesky.record(TEXT, facets=FACETS),
    f"{POST}3kc": bluesky.record("an answer", reply={"parent": {"uri": bluesky.BOBS, "cid": "b"}}),
    f"{POST}3kf": bluesky.record("", embed={"$type": "app.bsky.embed.images", "images": [{"ref": cid(b"picture")}]}),
    "app.bsky.feed.repost/3ke": bluesky.subject("repost"),
}


def write(folder: Path, content: bytes, name: str = "repo.car") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def rows(path: Path) -> list[dict]:
    with formats.opened(path, path.parent / "spill") as export:
        found = formats.detect(export)
        assert (found.format, found.alien) == ("bluesky", [])
        return [row for batch in formats.read(found, None) for row in batch.to_pylist()]


def fate_counts(path: Path) -> tuple[dict[str, int], list[str]]:
    with read_export(path, "auto", None, [], "id", path.parent / "spill") as export:
        return {name: export.counts[name] for name in ("read", "posts", "reposts", "left_out", "rejects")}, export.notes


def test_records_are_read_as_the_events_of_them(tmp_path):
    found = rows(write(tmp_path, repository(RECORDS)))
    stream = [bluesky.event(value, key.split("/")[0], rkey=key.split("/")[1]) for key, value in sorted(RECORDS.items())]
    for one in stream:
        del one["time_us"]  # a repository does not say when the network saw a record
    expected = bluesky.rows(tmp_path, *json.loads(json.dumps(stream, default=lambda link: {"$link": link.hex()})))
    assert [{**row, "file": ""} for row in found] == [{**row, "file": ""} for row in expected]
    posts = {row["post_id"]: row for row in found if row["text"]}
    assert posts[f"at://{DID}/{POST}3ka"]["hashtags"] == ["cats"]
    assert posts[f"at://{DID}/{POST}3ka"]["mentions"] == [bluesky.BOB]
    assert posts[f"at://{DID}/{POST}3kc"]["reply_to"] == bluesky.BOB
    assert {row["file"] for row in found} == {f"{tmp_path}/repo.car/records"}


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_every_record_of_a_tree_of_any_size(count):
    records = {f"{POST}3k{number:04}": bluesky.record(f"post {number}") for number in range(count)}
    lines = [json.loads(line) for line in car.events(repository(records), Counter())]
    assert [f"{one['commit']['collection']}/{one['commit']['rkey']}" for one in lines] == list(records)
    assert [one["commit"]["record"] for one in lines] == list(records.values())
    assert {one["did"] for one in lines} <= {DID}


def packed(content: bytes, how: str) -> tuple[bytes, str]:
    target = io.BytesIO()
    if how == "gz":
        return gzip.compress(content), "repo.car.gz"
    if how == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("a/repo.car", content)
            archive.writestr("b/empty.car", repository({}, "did:plc:b"))
    else:
        with tarfile.open(fileobj=target, mode="w:gz") as archive:
            about = tarfile.TarInfo("repo.car")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return target.getvalue(), f"repos.{how}"


@pytest.mark.parametrize("how", ["gz", "zip", "tgz"])
def test_packed_and_in_archives(tmp_path, how):
    content, name = packed(repository(RECORDS), how)
    assert len(rows(write(tmp_path, content, name))) == len(RECORDS)


def test_accounts_side_by_side(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write(tmp_path / "in", repository({f"{POST}3ka": bluesky.record(name)}, f"did:plc:{name}"), f"{name}.car")
    found = rows(tmp_path / "in")
    assert [(row["author"], row["text"]) for row in found] == [("did:plc:a", "a"), ("did:plc:b", "b")]
    assert not (tmp_path / "spill").exists()


def test_what_the_file_does_not_hold_is_counted(tmp_path):
    path = write(tmp_path, repository(RECORDS, without=(f"{POST}3ka", f"{POST}3kf")))
    counts, notes = fate_counts(path)
    assert counts["read"] == len(RECORDS) - 2
    assert f"{path}: not opened: 2 {car.LOST}" in notes


def test_a_record_that_is_none_is_a_reject(tmp_path):
    records = {**RECORDS, f"{POST}3kx": ["no", "object"], f"{POST}3ky": {"text": 5}}
    counts, _ = fate_counts(write(tmp_path, repository(records)))
    assert (counts["read"], counts["rejects"]) == (len(records), 2)


def test_a_block_that_cannot_be_decoded_is_a_reject(tmp_path):
    blocks = Blocks()
    bad = b"\x1c"
    blocks.of[cid(bad)] = bad
    data = blocks.add({"l": None, "e": [{"p": 0, "k": f"{POST}3ka".encode(), "v": cid(bad), "t": None}]})
    root = blocks.add({"did": DID, "data": data})
    counts, _ = fate_counts(write(tmp_path, blocks.car(root)))
    assert (counts["read"], counts["rejects"]) == (1, 1)


def changed(content: bytes) -> bytes:
    place = content.index(b"an answer")
    return content[:place] + b"AN ANSWER" + content[place + 9 :]


def no_account() -> bytes:
    blocks = Blocks()
    return blocks.car(blocks.add({"text": "hello"}))


def no_tree() -> bytes:
    blocks = Blocks()
    return blocks.car(blocks.add({"did": DID, "data": blocks.add(["text"])}))


def twice() -> bytes:
    blocks = Blocks()
    leaf = blocks.add({"l": None, "e": []})
    entry = {"p": 0, "k": b"a/b", "v": blocks.add({}), "t": leaf}
    return blocks.car(blocks.add({"did": DID, "data": blocks.add({"l": leaf, "e": [entry]})}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (repository(RECORDS)[:-5], "cut off in the block at byte"),
        (repository(RECORDS)[:30], "damaged or cut off"),
        (changed(repository(RECORDS)), "is not as its hash says"),
        (no_account(), "names no account"),
        (no_tree(), "a block of its tree is none"),
        (twice(), "its tree has a part twice"),
        (repository(RECORDS) + b"\xff" * 20, "at byte"),
        (b"\x3a\xa2eroots\x00", "damaged"),
        (varint(18) + libipld.encode_dag_cbor({"roots": [], "version": 1}), "not one root"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, content, message):
    with pytest.raises(UserError) as fault:
        rows(write(tmp_path, content))
    told = str(fault.value)
    assert told.startswith(f"{tmp_path}/repo.car: damaged or cut off archive (")
    assert message in told
    assert "\n" not in told


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=6), st.booleans())
def test_any_damage_is_told(place, new, cut):
    whole = repository(RECORDS)
    at = place % len(whole)
    content = whole[:at] if cut else whole[:at] + new + whole[at + len(new) :]
    skipped: Counter[str] = Counter()
    try:
        lines = set(car.events(content, skipped))
    except ValueError:
        return
    assert lines <= set(car.events(whole, Counter()))
    assert len(lines) == len(RECORDS) or skipped


def test_one_large_record_under_many_keys_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("ntulm.corpus.sources.archives.FREE_BYTES", 1 << 16)
    monkeypatch.setattr("ntulm.corpus.sources.archives.MAX_EXPANSION", 3)
    large = bluesky.record("x" * 20000)
    with pytest.raises(UserError, match="unpacks to more than 3 times its size"):
        rows(write(tmp_path, repository({f"{POST}3k{number:03}": large for number in range(100)})))


def test_a_key_of_no_record(tmp_path):
    counts, _ = fate_counts(write(tmp_path, repository({"odd": bluesky.record("a"), f"{POST}3ka": bluesky.record()})))
    assert (counts["read"], counts["posts"], counts["left_out"]) == (2, 1, 1)
