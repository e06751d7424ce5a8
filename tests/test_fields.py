"""Fields that a source may give: they reach roles, relations, tasks and new posts, by lines of params.yaml alone."""

import re
from collections import Counter

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw import READING, like, post, repost, said, written
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.corpus.records import FATES
from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.graph import stage as graph
from ntulm.inference.reading import read_posts
from ntulm.layout import Layout
from ntulm.ntus import FIELDS, READABLE
from ntulm.params import Params, check_params
from ntulm.tasks.posts import corpus_posts, with_labels
from ntulm.text import KEY_FORMS, community_key

SUGGESTED = re.compile(r"^( +)# (\w+: \{(?:key|type|left): .*)$", re.M)  # lines of the recipe that wait to be used
NEW = ("replied", "quoted", "linked", "posted_in", "located", "mentioned_cashtag")


def everything() -> Params:
    """The recipe with all that it suggests."""
    values = YAML(typ="safe", pure=True).load(SUGGESTED.sub(r"\1\2", configured("quickstart", [])))
    values["graph"]["min_degree"] = dict.fromkeys(values["ntus"]["types"], 1)
    values["graph"]["held_out_share"] = 0.0
    return check_params(values, "test")


def rich(number: int) -> dict:
    """A post with something in every field."""
    fields = {"reply_to": "bob", "quoted": "cat", "community": "r/News", "places": ["Rome"]}
    return post(number, text="buy $AAPL see https://www.a.example/x #tag", author="ann", **fields)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def test_what_the_recipe_suggests_makes_edges(layout, monkeypatch):
    written(monkeypatch, layout, [rich(number) for number in range(20)])
    params = everything()
    assert set(params.graph.relations) >= set(NEW)
    graph.run(params.graph, params.ntus.scheme, layout)
    edges = Counter(pq.read_table(layout.edges, columns=["rel"])["rel"].to_pylist())
    assert all(edges[name] for name in NEW), edges
    keys = {(node["type"], node["key"]) for node in pq.read_table(layout.nodes).to_pylist()}
    assert keys == {
        *(("user", name) for name in ("ann", "bob", "cat")),
        ("hashtag", "tag"), ("domain", "a.example"), ("community", "news"), ("place", "Rome"), ("cashtag", "aapl"),
    }  # fmt: skip


def test_a_new_post_has_the_ntus_of_the_corpus(layout, monkeypatch):
    written(monkeypatch, layout, [rich(number) for number in range(20)])
    scheme = everything().ntus.scheme
    posts = corpus_posts("corpus", 0, layout)
    known = with_labels(scheme, posts, [[0]] * len(posts)).ntus.to_pylist()[0]
    given = rich(1)
    new = {name: given[name] for name in ("text", "author", "community", "places", "reply_to", "quoted")}
    assert read_posts([new], scheme, READING).ntus.to_pylist()[0] == known
    spelled = new | {"reply_to": "@Bob", "community": "/r/news ", "cashtags": ["$aapl"]}
    assert read_posts([spelled], scheme, READING).ntus.to_pylist()[0] == known


def test_an_older_corpus_has_fewer_fields(layout, monkeypatch):
    written(monkeypatch, layout, [rich(number) for number in range(20)])
    table = pq.read_table(layout.posts)
    pq.write_table(table.drop(["cashtags", "community", "reply_to", "quoted"]), layout.posts)
    posts = corpus_posts("corpus", 0, layout)
    roles = {
        ntu["role"] for ntu in with_labels(everything().ntus.scheme, posts, [[0]] * len(posts)).ntus.to_pylist()[0]
    }
    assert roles == {"author", "hashtag", "link", "place"}


def test_key_forms_say_from_which_fields_they_take_keys():
    assert set(READABLE) == set(KEY_FORMS)
    assert {field for fields in READABLE.values() for field in fields} == set(FIELDS)


@settings(deadline=None)
@given(st.text(alphabet="rR/ xÉß", max_size=12) | st.text(max_size=12))
def test_the_key_of_a_community_is_its_own_key(name):
    key = community_key(name)
    assert community_key(key) == key


@pytest.mark.parametrize("field", ["cashtags", "text"])
def test_symbols_are_of_the_form_that_tasks_can_mask(field):
    values = YAML(typ="safe", pure=True).load(configured("quickstart", []))
    values["ntus"]["types"]["symbol"] = {"key": "verbatim"}
    values["ntus"]["roles"]["symbol"] = {"type": "symbol", "field": field}
    with pytest.raises(UserError, match=f"cannot be read from the field '{field}'"):
        check_params(values, "test")


def test_metrics_and_summary_say_what_was_left_out(layout, monkeypatch, capsys):
    rows = [post(number, author=str(number), mentions=[f"ann{number}"]) for number in range(20)]
    rows += [
        like("5", {"post_id": "p1"}),
        said(people=[{"id": "3", "handle": "ann4"}]),
        repost(30, post(2), author="5"),
    ]
    written(monkeypatch, layout, rows)
    metrics = read_json(layout.metrics("corpus"))
    assert metrics["read"] == sum(metrics[fate] for fate in FATES) == 23
    assert (metrics["left_out"], metrics["left_out_reasons"]) == (2, {"account event": 1, "like": 1})
    assert metrics["people"] == {"joined": 1, "mentioned": 20, "strangers": 19}
    said_lines = capsys.readouterr().out
    assert "corpus: left out: 1 account event, 1 like\n" in said_lines
    assert "corpus: warning: 19 of 20 mentioned names are nobody's author key" in said_lines


def test_an_export_with_nothing_but_likes_is_no_corpus(layout, monkeypatch):
    with pytest.raises(UserError, match=r"no usable post in 1 records \(.*left out 1.*\)"):
        written(monkeypatch, layout, [like("a", {"post_id": "p1"})])
