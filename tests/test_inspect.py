"""What `ntulm inspect` tells about an export."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ntulm.configure import configured, run
from ntulm.corpus import stage as corpus_stage
from ntulm.corpus.config import TableMapping
from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.graph import stage as graph_stage
from ntulm.inspect import command
from ntulm.inspect.inspection import Reason, inspect
from ntulm.inspect.shown import harmless, is_harmless
from ntulm.layout import Layout
from ntulm.params import load_params


def tweet(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id_str": str(number),
        "created_at": f"Wed Jan 01 00:00:{number:02d} +0000 2014",
        "text": f"secret words {number} #tag",
        "user": {"id_str": f"author{number}"},
        **changes,
    }


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_tweets(tmp_path, capsys):
    broken = {**tweet(3), "user": None}
    path = write(tmp_path / "a", tweet(1), tweet(2), tweet(2), tweet(4, retweeted_status=tweet(5)), broken, broken)
    found = inspect(path)
    assert (found.format, found.confidence, found.files) == ("twitter_v1", 1.0, (str(path),))
    expected = {"read": 6, "posts": 2, "reposts": 1, "duplicates": 1, "rejects": 2, "recovered": 1, "hashtags": 1}
    assert found.counts | expected == found.counts
    assert (found.counts["authors"], found.counts["engagements"]) == (3, 1)
    assert found.rejects == (Reason("no author", 2, f"{path}:5"),)
    assert found.first == "2014-01-01T00:00:01+00:00"
    command.run(path, "auto", None)
    printed = capsys.readouterr().out
    assert "records: 6" in printed
    assert f"rejected: no author: 2, first at {path}:5" in printed
    assert "the stage corpus would stop" in printed
    assert "2014-01-01 00:00 author1: secret words 1 #tag\n      hashtags: tag\n" in printed
    command.run(path, "auto", None, sample=False)
    assert "secret" not in capsys.readouterr().out


def test_a_table_is_read_with_a_guessed_mapping(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,Content,publish_date,retweet\na,hello,2015-01-01,0\nb,hi,2015-01-01,1\n")
    found = inspect(tmp_path)
    assert found.mapping is not None
    assert (found.mapping.author, found.mapping.text, found.mapping.repost_flag) == ("user_id", "Content", "retweet")
    assert (found.counts["posts"], found.counts["reposts"]) == (1, 1)
    printed = command.format_inspection(found)
    assert 'text: "Content"' in printed
    assert "no hashtag: are the texts HTML" in printed


def test_a_table_without_a_guess_shows_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text("foo,bar\n1,2\n")
    printed = command.format_inspection(inspect(tmp_path))
    assert "columns: foo, bar" in printed
    assert "corpus.table" in printed


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (  # Mastodon
            {
                "id": "1", "created_at": "2023-05-01T10:00:00Z", "language": "en", "account": {"acct": "Ann@b.example"},
                "content": "<p>hi <a>@<span>bob</span></a></p>", "tags": [{"name": "cats"}],
                "mentions": [{"acct": "bob@c.example"}],
            },
            {"author": "account.acct", "hashtags": "tags.name", "mentions": "mentions.acct", "html": True},
        ),
        (  # Bluesky
            {
                "uri": "at://1", "author": {"did": "did:plc:1", "handle": "ann.bsky.social"},
                "record": {"text": "hi #cats", "createdAt": "2023-05-01T10:00:00Z", "langs": ["en"]},
            },
            {"author": "author.handle", "text": "record.text", "lang": "record.langs", "html": False},
        ),
    ],
)  # fmt: skip
def test_what_the_interfaces_of_other_networks_give_is_read(tmp_path, record, expected):
    found = inspect(write(tmp_path / "a.jsonl", record), "table")
    assert found.mapping is not None
    assert found.mapping.model_dump() | expected == found.mapping.model_dump()
    assert (found.counts["posts"], found.counts["hashtags"]) == (1, 1)


def test_the_proposal_is_a_change_for_configure(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,Content,publish_date\na,hello,2015-01-01\n")
    line = next(line for line in command.format_inspection(inspect(tmp_path)).splitlines() if "ntulm configure" in line)
    _, _, recipe, *changes = shlex.split(line)
    made = YAML(typ="safe", pure=True).load(configured(recipe, changes))
    assert made["corpus"]["path"] == str(tmp_path)
    assert made["corpus"]["table"]["text"] == "Content"


def test_the_mapping_of_params_yaml_counts_where_it_fits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    proposal = {field: None for field in TableMapping.model_fields} | {
        "created_at": "when", "text": "what", "author": "who", "time_format": "%d.%m.%Y",
        "html": False, "casefold_users": True, "mention_hosts": False,
    }  # fmt: skip
    run("ira", [f"data={tmp_path}", f"corpus.table={json.dumps(proposal)}"])
    (tmp_path / "a.csv").write_text("who,what,when\na,hello,2015-01-01\nb,hi,01.02.2015\n")
    own = load_params(tmp_path / "params.yaml").corpus.table
    found = inspect(tmp_path / "a.csv", own=own)
    assert found.rejects == (Reason("date not as time_format says", 1, f"{tmp_path}/a.csv:2"),)
    assert "as params.yaml says" in command.format_inspection(found)


def test_what_is_missing_for_a_mapping_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("text,foo\n1,2\n")
    assert "no usual name for created_at, author" in command.format_inspection(inspect(tmp_path))


def test_an_export_of_rejects_alone_has_no_dates(tmp_path):
    found = inspect(write(tmp_path / "a", {**tweet(1), "user": {}}))
    assert (found.counts["posts"], found.first) == (0, None)
    assert "from" not in command.format_inspection(found).split("recovered from reposts")[1]
    assert "ntulm configure" not in command.format_inspection(found)


def test_bad_arguments(tmp_path):
    with pytest.raises(UserError, match="not found"):
        inspect(tmp_path / "none")
    with pytest.raises(UserError, match=r"'xml' is no format; expected auto, .*synthetic, table, .*twitter_v1"):
        inspect(write(tmp_path / "a", tweet(1)), "xml")


def post(number: int, **changes: Any) -> dict[str, Any]:
    """A row of a table: authors a0 to a4 use the tags t0 to t4 again and again."""
    row = {
        "created_at": f"2024-01-01T{number // 60:02d}:{number % 60:02d}:00Z",
        "screen_name": f"a{number % 5}",
        "text": f"the post {number} #t{number % 5} #u{number % 3} @a{(number + 1) % 5}",
        "lang": "en",
    }
    return {**row, **changes}


def test_ten_posts_from_the_first_to_the_last_are_shown(tmp_path):
    found = inspect(write(tmp_path / "a.jsonl", *(post(number) for number in range(100))))
    minutes = [shown.created_at.hour * 60 + shown.created_at.minute for shown in found.sample]
    assert minutes == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert (found.sample[0].author, found.sample[0].hashtags, found.sample[0].mentions) == ("a0", ["t0", "u0"], ["a1"])
    assert command.format_inspection(found).count(": the post ") == 10


def test_the_graph_and_what_it_knows_of_later_posts(tmp_path):
    found = inspect(write(tmp_path / "a.jsonl", *(post(number) for number in range(100))))
    assert found.graph is not None
    assert found.graph.nodes == {"hashtag": 3, "user": 5}  # the others have too few edges
    assert found.graph.relations["authored"] == found.graph.relations["co_mentioned"] == 15
    assert (found.graph.parts["test"], found.graph.known) == (20, 20)
    strangers = [post(number, screen_name=f"new{number}", text="without anything") for number in range(100, 140)]
    found = inspect(write(tmp_path / "a.jsonl", *(post(number) for number in range(100)), *strangers))
    assert found.graph is not None
    assert (found.graph.parts["test"], found.graph.known) == (28, 0)
    assert "of the test posts, 0.0% have an author or hashtag that the graph knows" in command.format_inspection(found)


def test_what_is_there_of_the_settings_of_own_is_what_its_stages_make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.jsonl", *(post(number) for number in range(100)))
    found = inspect(path)
    assert found.mapping is not None
    run("own", [f"data={path}", f"corpus.table={json.dumps(found.mapping.model_dump())}"])
    params = load_params(tmp_path / "params.yaml")
    corpus_stage.run(params.corpus, Layout())
    graph_stage.run(params.graph, params.ntus.scheme, Layout())
    graph = read_json(Layout().metrics("graph"))
    assert found.graph is not None
    assert found.graph.nodes == graph["nodes"]
    assert found.graph.relations == {name: one["distinct"] for name, one in graph["relations"].items()}
    splits = read_json(Layout().metrics("corpus"))["splits"]
    assert found.graph.parts == {name: splits[name] for name in ("train", "validation", "test")}


def test_one_author_is_told_that_authors_cannot_help(tmp_path):
    path = write(tmp_path / "a.jsonl", *(post(number, screen_name="me") for number in range(20)))
    assert "one author wrote all posts" in command.format_inspection(inspect(path))
    assert "one author" not in command.format_inspection(inspect(write(path, *(post(number) for number in range(20)))))


def test_ids_beside_handles_are_counted(tmp_path):
    records = [{**post(number), "screen_name": None, "user_id": f"10{number % 5}"} for number in range(20)]
    for record in records:
        del record["screen_name"]
    printed = command.format_inspection(inspect(write(tmp_path / "a.jsonl", *records)))
    assert "authors are ids (5) and mentions are handles (5)" in printed
    printed = command.format_inspection(inspect(write(tmp_path / "a.jsonl", *(post(number) for number in range(20)))))
    assert "authors are" not in printed


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{}] * 3 + [{"lang": "de"}], "languages: en 75.0%, de 25.0%"),
        ([{}] * 3 + [{"lang": "de"}], "! 75% of the posts that say their language are in English, and the packaged"),
        ([{}] * 39 + [{"lang": "de"}], "98% of the posts that say their language are in English, which the packaged"),
        ([{"lang": "en-US"}, {"lang": "und"}], "languages: en-US 50.0%, not told 50.0%"),
        ([{"lang": None}], "not given; 100% of the texts have one of the most usual English words"),
        ([{"lang": None}], "the texts look like English, which"),
        ([{"lang": None, "text": "Das ist ein Haus, und es steht leer."}], "! many texts do not look like English"),
        ([{"lang": None, "text": "это просто слова"}], "100% are in another script than Latin"),
    ],
)
def test_languages_are_told_in_words(tmp_path, records, said):
    rows = [post(number) | changes for number, changes in enumerate(records)]
    assert said in command.format_inspection(inspect(write(tmp_path / "a.jsonl", *rows)))


def test_nothing_that_a_terminal_obeys_is_printed(tmp_path):
    hostile = "\x1b[31mred\x1b]0;title\x07 \u202egnihtemos\u2066 \u200bx\x9b2J\u2028 end " + "long " * 100
    records = [post(1, text=hostile, screen_name="\x1bme", **{"co\x1b[2Jl": "1"})] + [post(2, text=None)] * 3
    path = write(tmp_path / "a\x1b[2Jb.jsonl", *records)
    printed = command.format_inspection(inspect(path))
    assert "red" in printed
    assert all(is_harmless(character) or character == "\n" for character in printed)
    assert max(len(line) for line in printed.splitlines() if "red" in line) < 200


@given(text=st.text(), length=st.integers(1, 20))
def test_harmless_texts_are_one_short_line(text, length):
    shown = harmless(text, length)
    assert len(shown) <= length
    assert all(is_harmless(character) for character in shown)
    assert harmless(shown) == shown


def test_files_of_another_format_are_named_and_skipped(tmp_path):
    write(tmp_path / "a.jsonl", tweet(1), tweet(2), tweet(3))
    (tmp_path / "notes.txt").write_text("what I did\n")
    found = inspect(tmp_path)
    assert (found.counts["read"], found.alien) == (3, (str(tmp_path / "notes.txt"),))
    assert "skipped, of another format: 1 file(s)" in command.format_inspection(found)
