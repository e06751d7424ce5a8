"""ntulm/inference/rows.py and incoming.py: every row of an input becomes a post or is named with its place."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ntulm.errors import UserError
from ntulm.inference import rows
from ntulm.inference.directory import Batches, Settings
from ntulm.inference.incoming import (
    NAMED_FAULTS,
    Faults,
    derived_id,
    fingerprints,
    posts_of,
)
from ntulm.inference.rows import Fault, Part, fields_in, read_rows, read_stdin
from ntulm.printable import json_line, printable
from ntulm.text import Reading

SETTINGS = Settings(
    "author+hashtag", 0, tiny_model.params_of().ntus.scheme, Batches(16, True, True), Reading(**tiny_model.SOURCE)
)
FIELDS = fields_in(rows.POST)


def everything(path, columns=FIELDS):
    """All rows, places and faults."""
    parts = list(read_rows(path, columns))
    assert parts[-1].share == pytest.approx(1.0)
    return [[one for part in parts for one in getattr(part, name)] for name in ("rows", "places", "faults")]


def test_json_lines_are_objects_or_strings_and_others_are_named(tmp_path):
    path = tmp_path / "posts.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "a", "author": "eve", "likes": 3}\n"b"\n\n[1]\nnot\n{"text": "\xff"}\n{"text": "c"}'
    )
    found, places, faults = everything(path)
    assert found == [{"text": "a", "author": "eve"}, {"text": "b"}, {"text": "c"}]
    assert [place.rsplit(":", 1)[1] for place in places] == ["1", "2", "7"]
    assert faults == [
        Fault(f"{path}:4", "neither a JSON object nor a string"),
        Fault(f"{path}:5", "not JSON"),
        Fault(f"{path}:6", "not UTF-8"),
    ]


def test_objects_need_not_have_the_same_keys(tmp_path):
    path = tmp_path / "posts.jsonl"
    path.write_text('{"text": "a", "uid": 1}\n{"id": 2, "text": "b", "username": "c"}\n')
    assert fields_in(rows.columns_of(path)) == {"post_id": "id", "text": "text", "author": "username"}
    path.write_text(json.dumps({"text": "a" * rows.HEAD_BYTES}) + '\n{"text": "b", "author": "c"}\n')
    assert everything(path, {"text": "text"})[0][1:] == [{"text": "b", "author": "c"}]


def test_a_quoted_header_is_no_text_and_a_text_is_no_header(tmp_path):
    path = tmp_path / "posts"
    for content, expected in {
        '"text"\n"a"\n': [{"text": "a"}],
        '"id","text"\n"1","a"\n': [{"post_id": "1", "text": "a"}],
        '"a"\n"text"\n': [{"text": "a"}, {"text": "text"}],
    }.items():
        path.write_text(content)
        assert everything(path, fields_in(rows.columns_of(path)))[0] == expected


def test_csv_with_line_breaks_in_texts_and_faulty_rows(tmp_path):
    path = tmp_path / "posts.csv"
    path.write_bytes(b'id;tweet_text;hashtags;n\n1;"a\nb; c";"[\'X\', \'y\']";\n2;short\n\n3;\xff;;\n4;d;"x y";\n')
    columns = fields_in(rows.columns_of(path))
    assert columns == {"post_id": "id", "text": "tweet_text", "hashtags": "hashtags"}
    found, places, faults = everything(path, columns)
    assert [row.get("hashtags") for row in found] == [["X", "y"], None, ["x", "y"]]
    assert (found[0]["text"], places[0], places[2]) == ("a\nb; c", f"{path}:2", f"{path}:7")
    assert faults == [Fault(f"{path}:4", "2 columns; the header has 4")]
    read = posts_of(Part(found, places, faults), SETTINGS)
    assert read.posts.texts == ["a\nb; c", "d"]
    assert read.faults[1] == Fault(
        f"{path}:6", "text: half a character (a lone surrogate) or a NUL; expected Unicode text"
    )


def test_parquet_takes_only_the_columns_of_posts(tmp_path):
    path = tmp_path / "posts.parquet"
    table = {"text": ["a", None], "author": [7, 8], "hashtags": [["x"], None], "blob": [b"1", b"2"]}
    pq.write_table(pa.table(table), path)
    found, places, _ = everything(path, fields_in(rows.columns_of(path)))
    assert found == [{"text": "a", "author": 7, "hashtags": ["x"]}, {"author": 8}]
    read = posts_of(Part(found, places), SETTINGS)
    assert (read.posts.authors, read.faults) == (
        ["7"],
        [Fault(f"{path}:2", "text: None; expected a text that is not empty")],
    )


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_packed_files_are_read_and_cut_ones_are_said(tmp_path, pack, monkeypatch):
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 100)
    path = tmp_path / "posts.jsonl.packed"
    content = pack(b"".join(b'{"text": "post %d"}\n' % number for number in range(5000)))
    path.write_bytes(content)
    found, _, faults = everything(path)
    assert ([row["text"] for row in found], faults) == ([f"post {number}" for number in range(5000)], [])
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"damaged or cut off|not JSON"):
        assert not everything(path)[2], "not JSON"


def test_a_folder_is_read_in_order_and_hidden_files_are_not(tmp_path):
    for name, text in {"b.jsonl": "two", "a.jsonl": "one", ".hidden": "none"}.items():
        (tmp_path / name).write_text(json.dumps({"text": text}) + "\n")
    assert [row["text"] for row in everything(tmp_path)[0]] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b'[\n {"text": "a"}]', "a JSON array; expected one object per line"),
        (b"a,b\n1,2\n", "no column 'text'; it has a, b"),
        (b'text,b\n"open,2\n', "a quote that opens here is not closed"),
        (b"PAR1 nothing", "damaged or cut off Parquet file"),
    ],
)
def test_what_is_no_table_of_posts_is_an_error(tmp_path, content, message):
    path = tmp_path / "posts"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        everything(path)


def test_nothing_there_and_a_line_without_end(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="not found; expected posts"):
        everything(tmp_path / "nowhere")
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 20)
    (tmp_path / "posts.jsonl").write_text('{"text": "a"}\n{"text": "' + "b" * 30 + '"}\n')
    with pytest.raises(UserError, match=r"posts\.jsonl:2: line of more than"):
        everything(tmp_path / "posts.jsonl")


def test_standard_input_takes_the_fields_of_posts_and_names_others(monkeypatch):
    lines = io.TextIOWrapper(io.BytesIO(b'"a"\n{"text": "b", "user": "c"}\n{"text": "d", "author": "@Eve"}\n'))
    monkeypatch.setattr("sys.stdin", lines)
    (part,) = read_stdin()
    read = posts_of(part, SETTINGS)
    assert (read.posts.texts, read.posts.authors) == (["a", "d"], [None, "eve"])
    (fault,) = read.faults
    assert (fault.where, fault.reason[:20]) == ("standard input:2", "unknown field 'user'")


def test_a_post_without_id_gets_the_same_one_again_and_the_content_counts():
    def ids(*given):
        return posts_of(Part([dict(one) for one in given], ["x"] * len(given)), SETTINGS).posts

    posts = ids({"text": "a"}, {"text": "a", "author": "eve"}, {"text": "a"}, {"text": "a", "post_id": 3})
    first, second, third, fourth = posts.table["post_id"].to_pylist()
    assert (first, fourth) == (third, "3")
    assert first != second
    assert first == derived_id({"text": "a"})
    prints = list(fingerprints(posts))
    assert prints[0] == prints[2] == prints[3] != prints[1]
    assert next(fingerprints(ids({"text": "b"}))) != prints[0]


def test_faults_are_counted_and_the_first_named():
    faults = Faults()
    faults.add([Fault(f"f:{number}", "not JSON\x1b[2J") for number in range(NAMED_FAULTS + 5)])
    said = faults.lines()
    assert said[0] == f"{NAMED_FAULTS + 5} rows could not be read:"
    assert (said[1], said[-1]) == ("  f:0: not JSON\\x1b[2J", "  and 5 more")
    assert Faults().lines() == []


@given(st.text())
def test_nothing_that_acts_on_a_terminal_is_printed(text):
    assert printable(text).isprintable()
    line = json_line({"key": text})
    assert line.isprintable()
    assert json.loads(line) == {"key": text}


hostile = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(hostile, hostile), min_size=1, max_size=20))
def test_each_row_of_a_csv_is_a_post_or_a_fault(tmp_path_factory, given):
    path = tmp_path_factory.mktemp("csv") / "posts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "author"), *given])
    found, places, faults = everything(path, {"text": "text", "author": "author"})
    read = posts_of(Part(found, places, faults), SETTINGS)
    assert len(read.posts) + len(read.faults) == len(given)


scalars = st.none() | st.text() | st.integers()
objects = st.dictionaries(st.sampled_from(rows.POST), scalars | st.lists(st.text()))


@given(st.lists(scalars | objects))
def test_each_line_of_json_is_a_post_or_a_fault(tmp_path_factory, given):
    path = tmp_path_factory.mktemp("json") / "posts.jsonl"
    path.write_text('{"text": "first"}\n' + "".join(json.dumps(value) + "\n" for value in given))
    found, places, faults = everything(path)
    read = posts_of(Part(found, places, faults), SETTINGS)
    assert len(read.posts) + len(read.faults) == len(given) + 1
