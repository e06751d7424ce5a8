"""`Model.add`: new authors and hashtags in memory, saved, and in a store of vectors."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import new_nodes
import numpy as np
import pyarrow.parquet as pq
import pytest

import ntulm
from ntulm.embeddings.table import OVERLAY_FILE
from ntulm.errors import UserError
from ntulm.inference.directory import READING, Settings
from ntulm.inference.model import Ntu
from ntulm.inference.version import version_of
from ntulm.use import embed

POSTS = [
    {"post_id": "1", "text": "we see #ltag0", "author": "@New"},
    {"post_id": "2", "text": "we like it #ltag1 #fresh", "author": "@New"},
    {"post_id": "3", "text": "so #fresh", "author": "left1"},
    {"post_id": "4", "text": "so #rtag0", "author": "@Once"},
    {"post_id": "5", "text": "so", "author": "right1"},
]


@pytest.fixture
def directory(lm_project, tiny_backbone) -> Path:
    return new_nodes.build_model(lm_project, tiny_backbone)


def test_new_ntus_are_known_from_then_on(directory):
    model = ntulm.load(directory)
    before, known = model.encode(POSTS), model.known(POSTS)
    assert known[0] == [Ntu("hashtag", "hashtag", "ltag0")]
    report = model.add(POSTS)
    assert (report.added, report.renewed, report.kept) == ({"user": 1}, {}, {})
    assert report.too_few == {"hashtag": 1, "user": 1}
    assert str(report) == "new NTUs: 1 folded in (user 1); 2 left out, with too few edges (hashtag 1, user 1)"
    assert model.known(POSTS)[0] == [Ntu("author", "user", "new"), Ntu("hashtag", "hashtag", "ltag0")]
    after = model.encode(POSTS)
    changed = np.abs(after - before).max(axis=1) > 1e-4
    assert changed.tolist() == [True, True, False, False, False]
    assert (len(model.table), len(model.stored)) == (17, 16)


def test_the_same_posts_again_change_nothing_and_more_edges_make_a_new_row(directory):
    model = ntulm.load(directory)
    model.add(POSTS)
    (row,) = model.table.later().vectors
    again = model.add(POSTS[::-1])
    assert (again.added, again.renewed, again.kept) == ({}, {}, {"user": 1})
    np.testing.assert_array_equal(model.table.later().vectors[0], row)
    fewer = model.add(POSTS[:1])
    assert (fewer.kept, fewer.too_few) == ({"user": 1}, {})
    more = model.add([*POSTS, {"text": "#ltag2 #ltag3", "author": "new"}])
    assert (more.added, more.renewed) == ({}, {"user": 1})
    later = model.table.later()
    assert (later.keys, later.edges.tolist()) == (["new"], [4])
    assert np.abs(later.vectors[0] - row).max() > 1e-3
    assert str(model.add([])) == "new NTUs: none"


def test_the_rows_of_two_calls_stand_together(directory):
    model = ntulm.load(directory)
    model.add(POSTS)
    row = model.table.later().vectors[0].copy()
    model.add([{"text": "#rtag0 #rtag1 #tagged", "author": "also"}, {"text": "#tagged", "author": "right1"}])
    later = model.table.later()
    assert (later.types, later.keys) == (["user", "user"], ["also", "new"])
    np.testing.assert_array_equal(later.vectors[1], row)


def test_a_saved_copy_is_another_version_and_reads_posts_the_same(directory, tmp_path):
    model = ntulm.load(directory)
    model.add(POSTS)
    model.save(tmp_path / "kept")
    again = ntulm.load(tmp_path / "kept")
    np.testing.assert_array_equal(again.encode(POSTS), model.encode(POSTS))
    assert version_of(tmp_path / "kept") != version_of(directory)
    assert not (directory / OVERLAY_FILE).exists()
    assert again.add(POSTS).kept == {"user": 1}
    assert again.table.later().edges.tolist() == [2]
    with pytest.raises(UserError, match="there already"):
        model.save(tmp_path / "kept")
    assert len(pickle.loads(pickle.dumps(model)).table) == 16  # the directory's


def test_a_model_of_an_earlier_version_says_so(directory):
    settings = Settings.read(directory)
    assert settings.fold_in is not None
    assert settings.fold_in.relations["authored"] == ("author", "hashtag")
    replace(settings, fold_in=None).write(directory / READING)
    with pytest.raises(UserError, match="made before new NTUs could be folded in"):
        ntulm.load(directory).add(POSTS)
    value = json.loads((directory / READING).read_text())
    (directory / READING).write_text(json.dumps(value | {"fold_in": {"embed": "off"}}))
    with pytest.raises(UserError, match="not the settings of a model directory"):
        ntulm.load(directory)


def stored() -> dict[str, dict]:
    rows = pq.read_table("v.parquet").to_pylist()
    assert len({row["post_id"] for row in rows}) == len(rows)
    return {row["post_id"]: row for row in rows}


def write_posts(posts) -> str:
    lines = [json.dumps(post) for post in posts]
    Path("p.jsonl").write_text("\n".join([*lines, "no post"]) + "\n")
    return "p.jsonl"


def test_embed_folds_in_the_new_ones_of_its_posts(directory, capsys):
    out = Path("v.parquet")
    embed.run(write_posts(POSTS), str(directory), out)
    plain = stored()
    assert plain["1"]["known"] == ["hashtag:ltag0"]
    settings = Settings.read(directory)
    assert settings.fold_in is not None
    value = replace(settings, fold_in=replace(settings.fold_in, embed="batch"))
    value.write(directory / READING)
    out.unlink()
    embed.run("p.jsonl", str(directory), out)
    first = stored()
    said = capsys.readouterr().err
    assert "1 folded in (user 1)" in said
    assert said.count("p.jsonl:6: not JSON") == 2  # once per run
    assert first["1"]["known"] == ["author:new", "hashtag:ltag0"]
    model = ntulm.load(directory)
    model.add(POSTS)
    for row, vector in zip(first.values(), model.encode(POSTS), strict=True):
        np.testing.assert_allclose(row["vector"], vector, atol=1e-5)
    assert [first[n]["content"] != plain[n]["content"] for n in "12345"] == [True, True, False, False, False]
    embed.run("p.jsonl", str(directory), out)
    assert "0 posts embedded, 5 were there" in capsys.readouterr().err
    assert stored() == first
    more = {"post_id": "6", "text": "#ltag3", "author": "new"}
    embed.run(write_posts([*POSTS, more]), str(directory), out)
    assert "3 posts embedded, 3 were there, 2 of the embedded had changed" in capsys.readouterr().err
    assert {row["model"] for row in stored().values()} == {version_of(directory)}
