"""ntulm/use/: posts of any make to a store of vectors, the same as `encode` gives."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model

import ntulm
from ntulm.configure import configured
from ntulm.errors import UserError
from ntulm.inference import store
from ntulm.inference.incoming import posts_of
from ntulm.inference.progress import Progress, progress_line
from ntulm.inference.rows import Part
from ntulm.inference.version import version_of
from ntulm.layout import Layout
from ntulm.use import embed

ROOT = Path(__file__).parent.parent
OUT = Path("vectors.parquet")


@pytest.fixture
def directory(lm_project, tiny_backbone) -> Path:
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    return layout.model


def posts(count=6):
    return [
        {"post_id": f"p{number}", "text": f"we like it {number}", "author": f"@Right{number % 9}"}
        for number in range(count)
    ]


def write_lines(path: Path, given) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in given))
    return str(path)


def rows_of(path=OUT) -> dict[str, dict]:
    rows = pq.read_table(path).to_pylist()
    assert len({row["post_id"] for row in rows}) == len(rows)
    return {row["post_id"]: row for row in rows}


def test_vectors_are_those_of_encode_whatever_the_posts_come_in(directory, tmp_path):
    model = ntulm.load(directory)
    expected = dict(zip([post["post_id"] for post in posts()], model.encode(posts()), strict=True))
    table = pa.Table.from_pylist(posts())
    pq.write_table(table, tmp_path / "p.parquet")
    lines = ["post_id,text,author", *(",".join(post.values()) for post in posts())]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    write_lines(tmp_path / "p.jsonl", posts())
    for name in ("p.parquet", "p.csv", "p.jsonl"):
        OUT.unlink(missing_ok=True)
        embed.run(name, str(directory), OUT)
        found = rows_of()
        assert list(found) == list(expected)
        for post_id, row in found.items():
            np.testing.assert_array_equal(np.array(row["vector"], np.float32), expected[post_id])
        assert {row["model"] for row in found.values()} == {version_of(directory)}
        assert (found["p1"]["known"], found["p4"]["known"]) == (["author:right1"], [])


def test_standard_input_and_rows_that_are_none(directory, monkeypatch, capsys):
    lines = '{"text": "we see", "author": "left1", "post_id": "a"}\n"it"\n{"txt": "b"}\nno\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    embed.run("-", str(directory), OUT)
    found = rows_of()
    assert (len(found), found["a"]["known"]) == (2, ["author:left1"])
    said = capsys.readouterr().err
    assert "2 posts embedded, 0 were there" in said
    assert "2 rows could not be read:" in said
    assert "standard input:3: unknown field 'txt'" in said
    assert "standard input:4: not JSON" in said


def test_an_input_without_any_post_is_an_error(directory, tmp_path):
    source = write_lines(tmp_path / "p.jsonl", [{"text": ""}, {"text": "\u0000"}])
    with pytest.raises(UserError, match=r"none of 2 rows is a post; .*p\.jsonl:1: text: ''"):
        embed.run(source, str(directory), OUT)
    assert not list(tmp_path.glob("*vectors*"))


def test_an_export_is_read_as_the_corpus_reads_it(directory, tmp_path, capsys):
    def tweet(number, **more):
        user = {"id_str": f"Right{number}"}
        base = {"id_str": str(number), "created_at": f"Wed Jan 01 00:00:{number:02d} +0000 2014", "user": user}
        entities = {"user_mentions": [], "hashtags": [{"text": "So"}], "urls": []}
        return base | {"text": "we like &amp; see #So", "entities": entities} | more

    broken = tweet(5, user={})
    given = [tweet(1), tweet(2), tweet(1), broken, tweet(4, retweeted_status=tweet(3))]
    source = write_lines(tmp_path / "tweets.jsonl", given)
    embed.run(source, str(directory), OUT)
    found = rows_of()
    assert set(found) == {"1", "2", "3"}
    assert found["1"]["known"] == ["author:right1"]
    expected = ntulm.load(directory).encode([{"text": "we like & see #So", "author": "right1"}])[0]
    np.testing.assert_allclose(np.array(found["1"]["vector"]), expected, atol=1e-5)
    assert "tweets.jsonl:4: no author" in capsys.readouterr().err


def test_a_table_that_a_mapping_describes_is_read_by_it(directory, tmp_path):
    (tmp_path / "t.csv").write_text("when,who,content\n2020-01-01,Right1,we like it\n2020-01-02,left2,we see #so\n")
    with pytest.raises(
        UserError, match="without a column `text`, and without one of a usual name for created_at, author"
    ):
        embed.run("t.csv", str(directory), OUT)
    mapping = (
        "corpus.table={post_id: null, created_at: when, text: content, author: who, lang: null, repost_flag: null, "
        "reposted_id: null, reposted_author: null, favorited_by: null, hashtags: null, mentions: null, "
        "time_format: null, html: false, casefold_users: true, mention_hosts: false}"
    )
    Path("params.yaml").write_text(configured("quickstart", [mapping]))
    embed.run("t.csv", str(directory), OUT)
    assert sorted(row["known"] for row in rows_of().values()) == [["author:left2"], ["author:right1"]]


def test_columns_that_are_not_used_are_said(directory, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("id,username,text,likes\x1b[1m\n1,Right1,we like it,3\n")
    embed.run("t.csv", str(directory), OUT)
    assert "t.csv: id as post_id; username as author; not used: likes\\x1b[1m" in capsys.readouterr().err
    assert rows_of()["1"]["known"] == ["author:right1"]


def test_only_new_posts_are_encoded(directory, tmp_path, monkeypatch):
    embed.run(write_lines(tmp_path / "p.jsonl", posts(4)), str(directory), OUT)
    encoded: list[str] = []
    encode = ntulm.Model.encode

    def watched(self, read):
        encoded.extend(read.texts)
        return encode(self, read)

    monkeypatch.setattr(ntulm.Model, "encode", watched)
    embed.run(write_lines(tmp_path / "p.jsonl", [*posts(6), {**posts(1)[0], "text": "so"}]), str(directory), OUT)
    assert encoded == ["we like it 4", "we like it 5"]
    assert len(rows_of()) == 6


def test_an_interrupt_says_how_to_go_on(directory, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(embed, "add", interrupt)
    with pytest.raises(UserError, match="interrupted; the same command goes on where it stopped"):
        embed.run(write_lines(tmp_path / "p.jsonl", posts()), str(directory), OUT)


@pytest.mark.slow
def test_after_a_kill_the_same_command_goes_on(directory, tmp_path):
    code = f"""
from pathlib import Path
from ntulm.inference import rows, store
rows.ROWS_AT_ONCE, store.PART_SECONDS = 5, 0.0
from ntulm.use import embed
embed.run("-", {str(directory)!r}, Path("vectors.parquet"))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=tmp_path, env=environment)
    lines = [json.dumps(post) + "\n" for post in posts(40)]
    assert process.stdin is not None
    process.stdin.write("".join(lines[:22]).encode())
    process.stdin.flush()
    deadline = time.monotonic() + 120
    while len(store.part_files(tmp_path / ".vectors.parquet.parts")) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not OUT.exists()
    arguments, given = [sys.executable, "-c", code], "".join(lines)
    done = subprocess.run(arguments, input=given, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert "20 posts embedded, 20 were there" in done.stderr, done.stderr
    assert list(rows_of()) == [post["post_id"] for post in posts(40)]
    assert not (tmp_path / ".vectors.parquet.parts").exists()


def test_progress_says_rate_and_time_left(capsys, monkeypatch):
    assert progress_line(1200, 60.0, 0.25) == "1,200 posts, 20 per second, 25 %, 0:03:00 left".replace("25 %", "25%")
    assert progress_line(1200, 60.0, None) == "1,200 posts, 20 per second"
    monkeypatch.setattr("ntulm.inference.progress.LOG_SECONDS", 0.0)
    progress = Progress("embed")
    progress.add(10, 0.5)
    progress.done()
    assert capsys.readouterr().err.startswith("embed: 10 posts, ")


def test_known_is_of_posts_that_were_read(directory):
    model = ntulm.load(directory)
    part = Part([{"text": "we", "author": "left1"}], ["f:1"])
    assert [[ntu.key for ntu in own] for own in model.known(posts_of(part, model.settings).posts)] == [["left1"]]
