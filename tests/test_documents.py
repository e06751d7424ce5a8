"""JSON that is not one record per line."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntulm.corpus.sources import documents, formats
from ntulm.corpus.sources.brackets import whole_objects
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.lines import record_lines, record_tables
from ntulm.errors import UserError

POSTS = [
    {"id": str(number), "text": f'a "b" \\ é {{[, {number}', "user": {"id": 1, "tags": [{"id": 2}]}}
    for number in range(7)
]
SHAPES = {
    "array": lambda posts: json.dumps(posts),
    "compact": lambda posts: json.dumps(posts, separators=(",", ":"), ensure_ascii=False),
    "pretty array": lambda posts: json.dumps(posts, indent=2),
    "a record per line of an array": lambda posts: "[" + ",\n".join(json.dumps(post) for post in posts) + "\n]\n",
    "arrays in an array": lambda posts: json.dumps([[posts[:3], []], [posts[3:5]], *posts[5:]]),
    "an array per line": lambda posts: "\n".join(json.dumps([posts[at : at + 3]]) for at in range(0, 7, 3)),
    "concatenated": lambda posts: "\n".join(json.dumps(post, indent=4) for post in posts),
    "on one line": lambda posts: "".join(json.dumps(post) for post in posts),
    "assigned": lambda posts: "window.YTD.tweets.part0 = " + json.dumps(posts, indent=2) + ";\n",
    "declared": lambda posts: "var posts = [" + ", ".join(json.dumps(post) for post in posts) + "]",
    "under a key": lambda posts: json.dumps({"@context": ["x", {"a": 1}], "orderedItems": posts, "n": {"feed": 2}}),
    "under a key, pretty": lambda posts: json.dumps({"totalItems": 7, "orderedItems": posts}, indent="\t"),
    "under a key, with a byte order mark": lambda posts: "\ufeff\n" + json.dumps({"orderedItems": posts, "last": "]"}),
    "pages": lambda posts: "\n".join(json.dumps({"orderedItems": posts[at : at + 3]}) for at in range(0, 7, 3)),
    "pages in an array": lambda posts: json.dumps([{"orderedItems": posts[:4], "n": 1}, {"orderedItems": posts[4:]}]),
    "lines": lambda posts: "\n".join(json.dumps(post) for post in posts),
}
UNENDED = ("concatenated", "on one line", "pages", "lines", "an array per line")  # any record may be the last


def records(
    data: str | bytes, *, part: int = 1 << 20, items: tuple[str, ...] = ("orderedItems",)
) -> list[tuple[Any, Any]]:
    """(content as value, reject) of each record of a document that is read in parts of some bytes."""
    data = data.encode() if isinstance(data, str) else data
    parts = (data[at : at + part] for at in range(0, len(data), part))
    rows = [row for table in documents.document_tables(parts, "x", items) for row in table.to_pylist()]
    assert [row["line"] for row in rows] == list(range(1, len(rows) + 1))
    return [judged(row["content"], row["reject"]) for row in rows]


def judged(content: str | None, reject: str | None) -> tuple[Any, str | None]:
    """A record as a reader sees it: what is no JSON is a reject there."""
    try:
        return (None if content is None else json.loads(content)), reject
    except (ValueError, RecursionError):
        return None, "invalid JSON"


@pytest.mark.parametrize("shape", SHAPES)
def test_records_in_any_shape(tmp_path: Path, shape: str) -> None:
    data = SHAPES[shape](POSTS)
    path = tmp_path / "a"
    path.write_text(data, encoding="utf-8")
    rows = pa.concat_tables(record_lines([File.of(path)], ("orderedItems", "feed"))).to_pylist()
    assert [json.loads(row["content"]) for row in rows] == POSTS
    assert [row["line"] for row in rows] == list(range(1, 8))
    assert {row["file"] for row in rows} == {str(path)}


@pytest.mark.parametrize("shape", SHAPES)
def test_records_do_not_depend_on_where_the_parts_end(shape: str) -> None:
    data = SHAPES[shape](POSTS)
    for part in (1, 7, 64):
        assert records(data, part=part) == [(post, None) for post in POSTS]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.4, 0.8, 1.0])
def test_the_beginning_shows_objects_in_any_shape(shape: str, share: float) -> None:
    data = SHAPES[shape](POSTS).encode()
    found = formats.objects(data[: int(len(data) * share)])
    assert found
    for value in found if "key" in shape or "pages" in shape else [{"orderedItems": found}]:
        assert value["orderedItems"][:1] == POSTS[:1] or "pages" in shape


def test_an_object_that_is_cut_is_closed() -> None:
    data = json.dumps(POSTS[0]).encode()
    assert formats.objects(data[:-1]) == [{"id": "0", "text": POSTS[0]["text"], "user": {"id": 1, "tags": [{"id": 2}]}}]
    assert formats.objects(b'{"id": "0", "text": "a, {b') == [{"id": "0"}]
    assert formats.objects(b'[{"id": "0", "user": {"name": "a\\') == [{"id": "0", "user": {}}]
    assert len(formats.objects(b'{"id": ' + b"[" * 50_000)) <= 1


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "pages in an array"])
def test_a_cut_end_is_one_reject(shape: str) -> None:
    data = SHAPES[shape](POSTS).encode()
    for end in range(len(data) // 2, len(data) - 1):
        rows = records(data[:end])
        good = [content for content, reject in rows if reject is None]
        assert good == POSTS[: len(good)]
        rejects = [reject for _, reject in rows if reject is not None]
        assert len(rejects) <= 1
        assert len(good) + len(rejects) >= 3
        assert rejects or len(good) == 7 or shape in UNENDED, (end, rows)
        assert all(reject.startswith("cut off") for reject in rejects)


@pytest.mark.parametrize(
    "shape", ["array", "compact", "pretty array", "assigned", "under a key", "concatenated", "on one line"]
)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"id": "3"', '"id": "3'),
        ('"id": "3"', '"id": 3"'),
        ('"id": "3"', '"id" "3"'),
        ('"id": "3"', '"id": "3"}'),
        ('"id": "3"', "junk"),
    ],
)
def test_a_damaged_record_costs_itself_alone(shape: str, old: str, new: str) -> None:
    data = SHAPES[shape](POSTS)
    if shape == "compact":
        old, new = old.replace(" ", ""), new.replace(" ", "")
    assert data.count(old) == 1
    rows = records(data.replace(old, new))
    assert [content for content, reject in rows if reject is None and content in POSTS] == POSTS[:3] + POSTS[4:]
    assert (None, "invalid JSON") in rows


def test_what_is_no_object_is_a_record_for_the_reader_to_refuse() -> None:
    assert records('[{"id": 1}, 5, null, "a", [{"id": 2}], {"id": 3}]', part=3, items=()) == [
        ({"id": 1}, None), (5, None), (None, None), ("a", None), ({"id": 2}, None), ({"id": 3}, None),
    ]  # fmt: skip


def test_a_list_in_very_many_others_is_one_record() -> None:
    depth = documents.MAX_LISTS
    assert records("[" * depth + '{"id": 1}' + "]" * depth) == [({"id": 1}, None)]
    assert records("[" * (depth + 1) + '{"id": 1}' + "]" * (depth + 1)) == [([{"id": 1}], None)]


def test_bytes_that_are_no_text_cost_their_record_alone() -> None:
    assert records(b'[{"a": "\xff"}, {"a": "\0"}, {"a": "\xc3\xa9"}]') == [
        (None, "not UTF-8"), (None, "NUL byte"), ({"a": "é"}, None),
    ]  # fmt: skip


def test_a_document_without_a_list_of_records_is_one_record() -> None:
    assert records('{\n"id": 1, "feed": {"a": []}, "orderedItems": 5}') == [
        ({"id": 1, "feed": {"a": []}, "orderedItems": 5}, None)
    ]
    assert records('{"orderedItems": []}') == []
    assert records('{"id": 1}\n{"orderedItems": [{"id": 2}]}') == [({"id": 1}, None), ({"id": 2}, None)]


def test_a_record_of_any_depth_and_number_is_no_crash() -> None:
    deep = '[{"id": 1}, {"id": ' + "[" * 100_000 + '}, {"id": 3}, {"id": ' + "9" * 5000 + "}]"
    rows = records(deep.replace("9" * 5000, "4"))
    assert rows == [({"id": 1}, None), (None, "nested too deep"), ({"id": 3}, None), ({"id": 4}, None)]
    (table,) = documents.document_tables([deep.encode()], "x")
    assert table["reject"].to_pylist() == [None, "nested too deep", None, None]


def test_damage_without_end_is_an_error_and_no_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_SKIPPED", 1000)
    with pytest.raises(UserError, match=r"x: record 3: invalid JSON, and none of the next 1,000 characters"):
        records('[{"id": 1}, {"id": 2}, {"id": "3, ' + '"x": [1], ' * 1000)
    monkeypatch.setattr(documents, "MAX_RECORD_CHARACTERS", 1000)
    with pytest.raises(UserError, match="x: record 2 has more than"):
        records('[{"id": 1}, {"id": "' + "a" * 5000 + '"}]', part=64)


@pytest.mark.parametrize(
    "start",
    [
        b"[id],[text]\n", b"{a},{b}\n", b"id,text\n", b"", b"[", b"PAR1", b'{"id": 1}\n{"id": 2}\n', b'{"id": 1}\n',
        b'{"id": 1, \n{"id": 2}\n',
        b'{"id": "cut\n{"id": 2}\n', b'\n\n{"id": 1}\n{"id', b'{"a": \n{"id": 2}\n{"id": 3}', b"\xff\xfe[",
    ],
)  # fmt: skip
def test_what_is_no_document_is_read_by_the_line(start: bytes) -> None:
    assert not documents.is_document(start, ("data",))


def test_a_large_array_is_read_in_bounded_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BLOCK_CHARACTERS", 10_000)
    record = json.dumps({"id": 1, "text": "a" * 90})
    longest = 0

    def parts() -> Any:
        yield b"["
        for _ in range(500):
            yield (record + ", ").encode() * 40
        yield b"{}]"

    document = documents._Document(parts(), "x", ())
    count = 0
    for _ in document.records():
        longest, count = max(longest, len(document.text)), count + 1
    assert count == 20_001
    assert longest < 20_000
    sizes = [len(table) for table in documents.document_tables(parts(), "x")]
    assert sum(sizes) == 20_001
    assert max(sizes) < 100


@given(st.binary(max_size=200), st.sampled_from([b"", b"[", b'{"feed": [', b"a.b = [{", b'[{"id": 1}, ']))
def test_any_bytes_are_read_or_counted(data: bytes, start: bytes) -> None:
    rows = [row for table in documents.document_tables([start + data], "x", ("feed",)) for row in table.to_pylist()]
    assert all((row["content"] is None) != (row["reject"] is None) for row in rows)
    assert rows or b"feed" in start or not (start + data).strip(b" \r\n\t,;[]\xef\xbb\xbf")
    formats.objects(start + data)


VALUES = (
    st.none()
    | st.floats(allow_nan=False)
    | st.integers()
    | st.text(max_size=5)
    | st.lists(st.text(max_size=3), max_size=2)
)


@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), max_size=5))
def test_what_json_writes_is_read(values: list[dict[str, Any]]) -> None:
    assert records(json.dumps(values), part=5, items=()) == [(value, None) for value in values]
    assert records(json.dumps({"orderedItems": values}, indent=1), part=5) == [(value, None) for value in values]


def test_an_array_of_tweets_is_read_as_lines_are(tmp_path: Path) -> None:
    tweets = [
        {"id_str": str(n), "created_at": "Mon Jan 04 00:00:00 +0000 2016", "text": "a #b", "user": {"id": 1}}
        for n in range(5)
    ]
    (tmp_path / "lines").write_text("\n".join(json.dumps(tweet) for tweet in tweets))
    (tmp_path / "array").write_text(json.dumps([*tweets[:2], 7, *tweets[2:]], indent=1))
    with formats.opened(tmp_path, tmp_path / "spill") as export:
        detection = formats.detect(export)
        rows = pa.Table.from_batches(list(formats.read(detection, None))).to_pylist()
    assert detection.format == "twitter_v1"
    assert [row["reject"] for row in rows] == [None, None, "not a post object", *[None] * 8]
    assert [row["post_id"] for row in rows if row["reject"] is None] == ["0", "1", "2", "3", "4"] * 2
    assert next(iter(record_tables(File.of(tmp_path / "array"))))["line"].to_pylist() == [1, 2, 3, 4, 5, 6]


def test_whole_objects_are_found_by_their_brackets() -> None:
    def found(data: str) -> list[str]:
        return [data[start:end] for start, end in whole_objects(data.encode())]

    tricky = [r'{"a": "}]{[\""}', r'{"b\\": {"c": [{"d": "\\\\"}]}}', "{}", '{"e": []}']
    assert found(", ".join(tricky) + ', {"cut": "') == tricky
    assert found("\n".join(tricky) + "] , {}") == tricky
    assert found('{"a": 1}, 5, {"b": 2}') == ['{"a": 1}']  # the rest is for the parser
    assert found('{"a": 1}, {"b": 2, {"c": 3}') == ['{"a": 1}']
    assert found('{"a": 1}, {"b": "2, "c": 3}, {"d": 4}') == ['{"a": 1}']
    assert found('{"a": 1}, {"b": 2]') == ['{"a": 1}']
    assert found('{"a": 1},, {"b": 2}') == ['{"a": 1}']


@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), max_size=6))
def test_whole_objects_are_those_of_a_parser(values: list[dict[str, Any]]) -> None:
    texts = [json.dumps(value, ensure_ascii=False).encode() for value in values]
    data = b",\n ".join(texts)
    assert [data[start:end] for start, end in whole_objects(data + b"]")] == texts
