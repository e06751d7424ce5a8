"""Readers: one schema whatever the format, and every fault told by file and line."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import exports
import pytest
import zstandard

from ntulm.corpus.sources import content, lines
from ntulm.corpus.sources import formats as sources
from ntulm.corpus.sources.export import File
from ntulm.errors import UserError


def tweet(number: int, text: str = "hello", user: int = 7, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "id_str": str(number),
        "created_at": "Wed Jan 01 00:00:48 +0000 2014",
        "text": text,
        "lang": "en",
        "user": {"id": user, "id_str": str(user), "screen_name": "someone"},
        "entities": {"hashtags": [], "urls": [], "user_mentions": []},
        **changes,
    }


def rows(path: Path, name: str) -> list[dict[str, Any]]:
    batches = exports.batches(path, name)
    assert all(batch.schema == sources.RAW_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def json_lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


# files


def test_compression_is_told_by_content_and_several_members_are_read(tmp_path):
    data = json_lines(tweet(1), tweet(2))
    for name, packed in {
        "plain.gz": data,
        "gz": gzip.compress(data[:50]) + gzip.compress(data[50:]),
        "padded": gzip.compress(data) + b"\0" * 512,
        "zst": zstandard.compress(data[:50]) + zstandard.compress(data[50:]),
    }.items():
        (tmp_path / name).write_bytes(packed)
        assert exports.detect(tmp_path / name) == "twitter_v1"
        assert [row["post_id"] for row in rows(tmp_path / name, "twitter_v1")] == ["1", "2"]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_truncated_file_is_an_error_with_its_line(tmp_path, pack):
    data = json_lines(*(tweet(number, text=str(number * 7919)) for number in range(5000)))
    file = tmp_path / "cut"
    file.write_bytes(pack(data)[:-20])
    with pytest.raises(UserError, match=r"cut:\d+: compressed file damaged or cut off"):
        rows(file, "twitter_v1")


def test_a_damaged_gzip_is_an_error(tmp_path):
    packed = bytearray(gzip.compress(json_lines(tweet(1))))
    packed[-8] ^= 0xFF  # the checksum
    (tmp_path / "a").write_bytes(packed)
    with pytest.raises(UserError, match="damaged"):
        rows(tmp_path / "a", "twitter_v1")


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(UserError, match="not found"):
        exports.detect(tmp_path / "none")
    with pytest.raises(UserError, match="no files"):
        exports.detect(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="empty file"):
        exports.detect(tmp_path / "empty")
    (tmp_path / "empty").write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match="empty file"):
        exports.detect(tmp_path)
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    with pytest.raises(UserError, match="format not recognised"):
        exports.detect(tmp_path / "picture")


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 10)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(content, "READ_BYTES", 10)
    (tmp_path / "a").write_bytes(b"{}\n" + b"x" * 1000)
    with pytest.raises(UserError, match=r"a:2: line of more than"):
        list(lines.line_tables(File.of(tmp_path / "a")))


def test_lines_are_numbered_through_blocks_and_blank_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 16)
    monkeypatch.setattr(content, "READ_BYTES", 5)
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\n\n\r\ntwo\nthree \xff\nfour\0\n five\n\n\nsix")
    found = [row for table in lines.line_tables(File.of(tmp_path / "a")) for row in table.to_pylist()]
    assert [(row["line"], (row["content"] or "").strip() or row["reject"]) for row in found] == [
        (1, "one"), (4, "two"), (5, "not UTF-8"), (6, "NUL byte"), (7, "five"), (10, "six"),
    ]  # fmt: skip


def test_small_files_share_a_table_and_large_ones_have_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 120)
    monkeypatch.setattr(content, "READ_BYTES", 40)
    for name, count in (("a", 1), ("b", 2), ("c", 60), ("d", 1)):
        (tmp_path / name).write_bytes(b"".join(b"%s%d\n" % (name.encode(), i) for i in range(1, count + 1)))
    tables = [table.to_pylist() for table in lines.record_lines(exports.files(tmp_path))]
    found = [(Path(row["file"]).name, row["line"], row["content"].strip()) for table in tables for row in table]
    assert found == [(n, i, f"{n}{i}") for n, k in (("a", 1), ("b", 2), ("c", 60), ("d", 1)) for i in range(1, k + 1)]
    assert 1 < len(tables) < 60


def test_work_side_by_side_comes_back_in_its_order_and_an_error_ends_it():
    done: list[tuple[int, int]] = []

    def work(cursor, number):
        if number == 7:
            raise ValueError("seven")
        values = {"n": number, "top": 9000 // number}
        return number, cursor.execute("SELECT sum(i * $n) FROM range($top) t(i)", values).fetchone()[0]

    with duckdb.connect() as connection:
        threads = connection.execute("SELECT current_setting('threads')").fetchone()
        with pytest.raises(ValueError, match="seven"):
            done.extend(lines.side_by_side(connection, work, range(1, 100)))
        results = list(lines.side_by_side(connection, work, range(8, 60)))
        assert connection.execute("SELECT current_setting('threads')").fetchone() == threads
    assert done == [(n, n * sum(range(9000 // n))) for n in range(1, len(done) + 1)]
    assert len(done) < 7
    assert results == [(n, n * sum(range(9000 // n))) for n in range(8, 60)]


def test_files_of_a_folder_are_read_in_order_and_hidden_ones_left_out(tmp_path):
    (tmp_path / "b.jsonl").write_bytes(json_lines(tweet(2)))
    (tmp_path / "a.jsonl").write_bytes(json_lines(tweet(1)))
    (tmp_path / ".hidden").write_bytes(b"rubbish")
    assert [(Path(row["file"]).name, row["post_id"]) for row in rows(tmp_path, "twitter_v1")] == [
        ("a.jsonl", "1"),
        ("b.jsonl", "2"),
    ]


def test_the_wrong_encoding_of_the_first_line_hides_neither_the_format_nor_the_columns(tmp_path):
    latin = json_lines(tweet(1, "caf.")).replace(b"caf.", b"caf\xe9")
    (tmp_path / "tweets").write_bytes(latin)
    assert exports.detect(tmp_path / "tweets") == "twitter_v1"
    (tmp_path / "table").write_bytes(b'{"time": "2014-01-01", "text": "caf\xe9", "author": "a"}\n')
    with pytest.raises(UserError, match="it has time, text, author"):
        rows(tmp_path / "table", "table")


# twitter_v1


def test_a_tweet(tmp_path):
    entities = {
        "hashtags": [{"text": "One"}, {"text": "two"}],
        "urls": [{"url": "http://t.co/x", "expanded_url": "http://example.org/"}],
        "user_mentions": [{"id_str": "9", "id": 9}],
    }
    place = {"id": "p1", "full_name": "Here"}
    (tmp_path / "a").write_bytes(json_lines(tweet(1, "short", entities=entities, place=place)))
    (row,) = rows(tmp_path / "a", "twitter_v1")
    assert row["reject"] is None
    assert row["created_at"] == datetime(2014, 1, 1, 0, 0, 48, tzinfo=UTC)
    assert (row["author"], row["mentions"], row["hashtags"]) == ("7", ["9"], ["One", "two"])
    assert (row["urls"], row["places"], row["is_repost"]) == (["http://example.org/"], ["p1"], False)


def test_the_long_text_and_its_entities_are_preferred(tmp_path):
    long = {"full_text": "the whole text #tag", "entities": {"hashtags": [{"text": "tag"}]}}
    (tmp_path / "a").write_bytes(
        json_lines(tweet(1, "the wh…", extended_tweet=long), {**tweet(2, "cut"), "full_text": "not cut"})
    )
    first, second = rows(tmp_path / "a", "twitter_v1")
    assert (first["text"], first["hashtags"]) == ("the whole text #tag", ["tag"])
    assert second["text"] == "not cut"


def test_a_retweet_embeds_its_original_and_a_hand_typed_one_is_a_post(tmp_path):
    original = tweet(1, "the whole", user=3)
    (tmp_path / "a").write_bytes(
        json_lines(tweet(2, "RT @x: the wh…", retweeted_status=original), tweet(3, "RT @x: by hand"))
    )
    first, second = rows(tmp_path / "a", "twitter_v1")
    assert first["is_repost"]
    assert (first["reposted"]["post_id"], first["reposted"]["text"], first["reposted"]["author"]) == (
        "1",
        "the whole",
        "3",
    )
    assert not second["is_repost"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": 1, ', "invalid JSON"),
        (b"plain words", "invalid JSON"),
        (b'{"id": 1, "text": "\\ud800"}', "invalid JSON"),  # half a surrogate pair is no text
        (b"\xff\xfe", "not UTF-8"),
        (b'{"id": 1, "text": "caf\xe9"}', "not UTF-8"),
        (b'{"id": 1}\0', "NUL byte"),
        (b"null", "not a post object"),
        (b"[1, 2]", "not a post object"),
        (b"17", "not a post object"),
        (b'{"deleted": {"status": {"id": 1}}}', "not a post object"),
        (json.dumps(tweet(1, created_at="Wed Feb 30 00:00:00 +0000 2014")).encode(), "impossible date"),
        (json.dumps(tweet(1, created_at="yesterday")).encode(), "impossible date"),
        (b"[" * 100_000, "invalid JSON"),
    ],
)
def test_a_bad_line_costs_itself_alone(tmp_path, line, reason):
    (tmp_path / "a").write_bytes(json_lines(tweet(1)) + line + b"\n" + json_lines(tweet(2)))
    first, bad, last = rows(tmp_path / "a", "twitter_v1")
    assert (first["post_id"], last["post_id"], last["line"]) == ("1", "2", 3)
    assert (bad["line"], bad["reject"]) == (2, reason)
    assert all(value is None for key, value in bad.items() if key not in ("file", "line", "reject"))


def test_values_of_unexpected_types_do_not_stop_the_reader(tmp_path):
    odd = [
        tweet(1, user="me"),  # type: ignore[arg-type]
        {**tweet(2), "user": "me"},
        {**tweet(3), "entities": 5},
        {**tweet(4), "entities": {"hashtags": [None, 3, {"text": None}], "urls": {}, "user_mentions": "x"}},
        {**tweet(5), "text": {"a": 1}},
        {**tweet(6), "retweeted_status": {}},
        {**tweet(7), "place": []},
    ]
    (tmp_path / "a").write_bytes(json_lines(*odd))
    found = rows(tmp_path / "a", "twitter_v1")
    assert len(found) == len(odd)
    assert found[2]["hashtags"] is None  # no entities: from the text
    assert found[5]["is_repost"] is False
