"""Authors and posts that are not to be read again: the list, what honours it, and what still holds something."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw import READING, like, post, repost, written
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.corpus import forget
from ntulm.corpus.forget import Entry
from ntulm.embeddings import stage as embeddings
from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.graph import stage as graph
from ntulm.layout import Layout
from ntulm.params import Params, check_params
from ntulm.production.forget import ARRIVED, holders, run
from ntulm.production.kept import Kept
from ntulm.pseudonyms import VARIABLE, Pseudonyms
from ntulm.tasks.posts import corpus_posts, with_labels
from ntulm.text import Reading

KEY = "0123456789abcdef-a-test"


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def params(**changes) -> Params:
    values = YAML(typ="safe", pure=True).load(configured("quickstart", []))
    values["graph"]["min_degree"] = {"user": 1, "hashtag": 1}
    values["embeddings"] |= {"engine": "torch", "dimension": 4, "epochs": 1}
    values["corpus"] |= changes
    return check_params(values, "test")


def rows() -> list[dict]:
    made = [post(n, author="Ann" if n % 2 else "bob", text=f"hi @Cat #tag {n}", people=[]) for n in range(20)]
    made[0] |= {"text": "hi @ann, @Anna #tag", "reply_to": "ann", "quoted": "ann", "favorited_by": ["ann", "cat"]}
    made[1] |= {"people": [{"id": "7", "handle": "dan"}]}
    made += [repost(30, post(31, author="ann"), author="cat"), like("ann", {"post_id": "p2"}), post(32, author="7")]
    return made


def everything(layout: Layout) -> str:
    return str([pq.read_table(path).to_pylist() for path in sorted(layout.corpus.glob("*.parquet"))])


@pytest.mark.parametrize("hides", [False, True])
def test_a_forgotten_author_is_nowhere(layout, monkeypatch, hides):
    monkeypatch.setenv(VARIABLE, KEY)
    written(monkeypatch, layout, rows(), pseudonyms=hides)
    assert re.search(
        r"\bann\b" if not hides else Pseudonyms(KEY, READING).user("Ann"), everything(layout), re.IGNORECASE
    )
    run(params(pseudonyms=hides), "@ANN", None, layout)
    assert ("ann" in (layout.root / "forget.txt").read_text().casefold()) == (not hides)
    written(monkeypatch, layout, rows(), pseudonyms=hides)
    found = everything(layout)
    if hides:
        hidden = [Pseudonyms(KEY, READING).user(name) for name in ("Ann", "ann")]
        assert not re.search("|".join(hidden), found)
    assert not re.search(r"\bann\b", found, re.IGNORECASE)
    first = pq.read_table(layout.posts).to_pylist()[0]
    nobody = Pseudonyms(KEY, READING).user("user") if hides else "user"
    assert first["text"].startswith(f"hi @{nobody}, @")
    assert (first["reply_to"], first["quoted"], len(first["mentions"])) == (None, None, 1)
    metrics = read_json(layout.metrics("corpus"))
    assert metrics["left_out_reasons"] == {"to be forgotten": 12}
    assert metrics["engagements"] == {"favorited": 1, "reposted": 0}


@pytest.mark.parametrize("hides", [False, True])
def test_a_forgotten_post_is_left_out_and_its_author_stays(layout, monkeypatch, hides):
    monkeypatch.setenv(VARIABLE, KEY)
    run(params(pseudonyms=hides), None, "p31", layout)
    written(monkeypatch, layout, rows(), pseudonyms=hides)
    posts = pq.read_table(layout.posts).to_pylist()
    assert "p31" not in {one["post_id"] for one in posts}
    assert (len(posts), read_json(layout.metrics("corpus"))["left_out_reasons"]["to be forgotten"]) == (21, 1)


def test_an_account_is_forgotten_under_its_other_name(layout, monkeypatch):
    run(params(), "dan", None, layout)
    written(monkeypatch, layout, rows())
    assert "7" not in pq.read_table(layout.posts)["author"].to_pylist()


def test_what_still_holds_an_author_is_said(layout, monkeypatch, capsys):
    written(monkeypatch, layout, [one | {"author": one["author"].lower()} for one in rows()])
    own = params()
    graph.run(own.graph, own.ntus.scheme, layout)
    embeddings.run(own.embeddings, layout)
    posts = corpus_posts("corpus", 0, layout)
    layout.task("t").mkdir(parents=True)
    pq.write_table(with_labels(own.ntus.scheme, posts, [[0]] * len(posts)).table, layout.task("t") / "t.parquet")
    layout.scores("text", 0, "t").mkdir(parents=True)
    layout.pretrain("text", 0).mkdir(parents=True)
    capsys.readouterr()
    run(own, "Ann", None, layout)
    lines = capsys.readouterr().out.splitlines()
    found = {line.split(": ")[1].removeprefix(f"{layout.root}/") for line in lines[1:-1]}
    assert found == {
        "data/corpus/posts.parquet", "data/corpus/engagements.parquet", "data/graph/nodes.parquet", "data/embeddings",
        "data/tasks/t/t.parquet", "data/probe/text/0/t", "data/pretrain/text/0",
    }  # fmt: skip
    assert "dvc repro" in lines[-1]
    run(own, "nobody", None, layout)
    assert "no output holds anything" in capsys.readouterr().out


def test_a_line_is_added_once(tmp_path):
    path = tmp_path / "list"
    path.write_text("# who\n\nauthor eve")
    assert forget.add(path, Entry("post", "a b"))
    assert not forget.add(path, Entry("author", "eve"))
    assert path.read_text() == "# who\n\nauthor eve\npost a b\n"
    assert forget.read(path) == [Entry("author", "eve"), Entry("post", "a b")]
    assert forget.read(tmp_path / "none") == []


@pytest.mark.parametrize("line", ["ann", "author", "user ann", "author-hash "])
def test_a_line_that_is_none(tmp_path, line):
    path = tmp_path / "list"
    path.write_text(f"# who\n{line}\n")
    with pytest.raises(UserError, match=r"list:2: .*expected `author NAME` or `post ID`"):
        forget.read(path)


@pytest.mark.parametrize(("author", "post_id"), [(None, None), ("a", "b"), (" @", None), ("a\nb", None), (None, "")])
def test_one_name_is_wanted(layout, author, post_id):
    with pytest.raises(UserError, match="expected"):
        run(params(), author, post_id, layout)
    assert not (layout.root / "forget.txt").exists()


def test_hashes_need_pseudonyms(layout, monkeypatch):
    (layout.root / "forget.txt").write_text("author-hash abc\n")
    with pytest.raises(UserError, match=r"corpus.forget: author-hash: without corpus.pseudonyms"):
        written(monkeypatch, layout, rows())


def test_what_is_kept_of_arriving_posts_is_said_and_how_it_goes_away(layout):
    kept = Kept(layout.arrivals)
    kept.labels.mkdir(parents=True)
    pq.write_table(pa.table({"post_id": ["7"], "known": [["mention:alice", "hashtag:x"]]}), kept.store)
    pq.write_table(pa.table({"post_id": ["7"], "known": [True]}), kept.labels / "topic.side.parquet")
    pq.write_table(pa.table({"post_id": ["7"], "author": ["bob"]}), kept.posts)
    reading = Reading(True, False, False, True)
    cases: list[tuple[forget.Kind, str, list[str]]] = [
        ("author", "Alice", ["vectors"]),
        ("author", "bob", ["posts"]),
        ("post", "7", ["labels/topic.side", "posts", "vectors"]),
        ("author", "nobody", []),
    ]
    for kind, name, files in cases:
        said = list(holders(kind, name, reading, layout))
        last = [f"forget: {layout.arrivals}: {ARRIVED}"] if files else []
        assert said == [f"forget: {layout.arrivals}/{file}.parquet: 1 rows" for file in files] + last
