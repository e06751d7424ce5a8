"""What `ntulm inspect` tells about an export."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ntulm.configure import configured, run
from ntulm.corpus import inspect
from ntulm.corpus.config import TableMapping
from ntulm.errors import UserError
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
    found = inspect.inspect(path)
    assert (found.format, found.files) == ("twitter_v1", 1)
    expected = {"read": 6, "posts": 2, "reposts": 1, "duplicates": 1, "rejects": 2, "recovered": 1, "hashtags": 1}
    assert found.counts | expected == found.counts
    assert (found.counts["authors"], found.counts["engagements"]) == (3, 1)
    assert found.rejects == (inspect.Reason("no author", 2, f"{path}:5"),)
    assert found.first == "2014-01-01T00:00:01+00:00"
    inspect.run(path, "auto", None)
    printed = capsys.readouterr().out
    assert "records: 6" in printed
    assert f"rejected: no author: 2, first at {path}:5" in printed
    assert "secret" not in printed
    assert "author1" not in printed


def test_a_table_is_read_with_a_guessed_mapping(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,Content,publish_date,retweet\na,hello,2015-01-01,0\nb,hi,2015-01-01,1\n")
    found = inspect.inspect(tmp_path)
    assert found.mapping is not None
    assert (found.mapping.author, found.mapping.text, found.mapping.repost_flag) == ("user_id", "Content", "retweet")
    assert (found.counts["posts"], found.counts["reposts"]) == (1, 1)
    printed = inspect.format_inspection(found)
    assert 'text: "Content"' in printed
    assert "no hashtag: are the texts HTML" in printed


def test_a_table_without_a_guess_shows_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text("foo,bar\n1,2\n")
    printed = inspect.format_inspection(inspect.inspect(tmp_path))
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
    found = inspect.inspect(write(tmp_path / "a.jsonl", record), "table")
    assert found.mapping is not None
    assert found.mapping.model_dump() | expected == found.mapping.model_dump()
    assert (found.counts["posts"], found.counts["hashtags"]) == (1, 1)


def test_the_proposal_is_a_change_for_configure(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,Content,publish_date\na,hello,2015-01-01\n")
    line = next(line for line in inspect.format_inspection(inspect.inspect(tmp_path)).splitlines() if "read as" in line)
    made = YAML(typ="safe", pure=True).load(configured("ira", [f"data={tmp_path}", line.split("guessed: ")[1]]))
    assert made["corpus"]["table"]["text"] == "Content"


def test_the_mapping_of_params_yaml_counts_where_it_fits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    proposal = {field: None for field in TableMapping.model_fields} | {
        "created_at": "when", "text": "what", "author": "who", "time_format": "%d.%m.%Y", "labels": [],
        "html": False, "casefold_users": True, "mention_hosts": False,
    }  # fmt: skip
    run("ira", [f"data={tmp_path}", f"corpus.table={json.dumps(proposal)}"])
    (tmp_path / "a.csv").write_text("who,what,when\na,hello,2015-01-01\nb,hi,01.02.2015\n")
    own = load_params(tmp_path / "params.yaml").corpus.table
    found = inspect.inspect(tmp_path / "a.csv", own=own)
    assert found.rejects == (inspect.Reason("date not as time_format says", 1, f"{tmp_path}/a.csv:2"),)
    assert "as params.yaml says" in inspect.format_inspection(found)


def test_what_is_missing_for_a_mapping_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("text,foo\n1,2\n")
    assert "no usual name for created_at, author" in inspect.format_inspection(inspect.inspect(tmp_path))


def test_an_export_of_rejects_alone_has_no_dates(tmp_path):
    found = inspect.inspect(write(tmp_path / "a", {**tweet(1), "user": {}}))
    assert (found.counts["posts"], found.first) == (0, None)
    assert "from" not in inspect.format_inspection(found).split("recovered from reposts")[1]


def test_bad_arguments(tmp_path):
    with pytest.raises(UserError, match="not found"):
        inspect.inspect(tmp_path / "none")
    with pytest.raises(UserError, match=r"'xml' is no format; expected auto, .*synthetic, table, twitter_v1"):
        inspect.inspect(write(tmp_path / "a", tweet(1)), "xml")
