"""`ntulm refresh`: a later table in the space of an earlier one, and the model that goes on with it."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import new_nodes
import numpy as np
import pytest
from typer.testing import CliRunner

import ntulm
from ntulm.cli import app
from ntulm.embeddings.alignment import turn_onto, write_turned
from ntulm.embeddings.operators import OPERATORS_FILE, Operators
from ntulm.embeddings.table import EmbeddingTable, write_overlay, write_table
from ntulm.errors import UserError
from ntulm.files import sha256
from ntulm.inference.directory import CARD
from ntulm.inference.version import version_of
from ntulm.layout import Layout
from ntulm.use import refresh
from ntulm.use.refresh import HEADING

NEW = {"user": ["left9", "right9"], "hashtag": ["ltag9"]}
POSTS = [
    {"text": "we see #ltag0 #rtag2", "author": "left1"},
    {"text": "we like it", "author": "right1"},
    {"text": "so it goes", "author": "nobody"},
    {"text": "so it goes #ltag9", "author": "left9"},
]


def turned_table(source: Path, target: Path, noise: float = 0.0) -> np.ndarray:
    """The graph of `new_nodes`, later: turned, with new NTUs and without the user `left0`; the matrix."""
    random = np.random.default_rng(1)
    earlier, operators = new_nodes.loaded(source)
    dimension = earlier.dimension
    matrix, _ = np.linalg.qr(random.standard_normal((dimension, dimension)))
    users = [user for user in new_nodes.USERS if user != "left0"]
    named = [("hashtag", key) for key in [*new_nodes.HASHTAGS, *NEW["hashtag"]]]
    named += [("user", key) for key in [*users, *NEW["user"]]]
    old = np.concatenate([earlier.rows(kind, [key]) for kind, key in named])
    vectors = np.where(old[:, None] < 0, random.standard_normal((len(old), dimension)), earlier.vectors_of(old))
    vectors = (vectors + noise * random.standard_normal(vectors.shape)) @ matrix
    target.mkdir()
    write_table(target, [kind for kind, _ in named], [key for _, key in named], vectors.astype(np.float32))
    nodes = {"hashtag": (0, 9), "user": (9, len(named) - 9)}
    replace(operators, vectors=(operators.vectors @ matrix).astype(np.float32), nodes=nodes).write(target)
    return matrix


@pytest.fixture
def directory(lm_project, tiny_backbone) -> Path:
    return new_nodes.build_model(lm_project, tiny_backbone)


def test_a_table_is_turned_back_into_the_space_that_it_came_from(tmp_path):
    new_nodes.write_graph(tmp_path)
    earlier, operators = new_nodes.loaded(tmp_path)
    matrix = turned_table(tmp_path, tmp_path / "later")
    turn = turn_onto(earlier, EmbeddingTable.load(tmp_path / "later"))
    assert turn.common == len(earlier) - 1
    assert turn.before < 0.9
    assert turn.after == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(turn.matrix, matrix.T, atol=1e-4)
    (tmp_path / "turned").mkdir()
    write_turned(tmp_path / "turned", earlier, tmp_path / "later", turn)
    found, relations = new_nodes.loaded(tmp_path / "turned")
    for kind, keys in (("user", new_nodes.USERS[1:]), ("hashtag", new_nodes.HASHTAGS)):
        own, before = (table.vectors_of(table.rows(kind, keys)) for table in (found, earlier))
        np.testing.assert_allclose(own, before, atol=1e-5)
        np.testing.assert_array_equal(found.type_means[kind], earlier.type_means[kind])
    np.testing.assert_array_equal(found.mean, earlier.mean)
    np.testing.assert_allclose(relations.vectors, operators.vectors, atol=1e-5)
    assert found.rows("user", ["left0", "left9"]).tolist() == [-1, 16]


def test_how_near_they_are_is_measured_on_rows_that_the_turn_was_not_fitted_to(tmp_path):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    random = np.random.default_rng(0)
    keys = [f"u{number}" for number in range(40)]
    for folder in ("one", "other"):
        write_table(tmp_path / folder, ["user"] * 40, keys, random.standard_normal((40, 16)).astype(np.float32))
    turn = turn_onto(EmbeddingTable.load(tmp_path / "one"), EmbeddingTable.load(tmp_path / "other"))
    assert abs(turn.after) < 0.25  # nothing in common; fitted to the same rows, it would look like 0.5 and more


def test_rows_that_were_folded_into_the_later_table_are_turned_too(tmp_path):
    new_nodes.write_graph(tmp_path)
    earlier, _ = new_nodes.loaded(tmp_path)
    matrix = turned_table(tmp_path, tmp_path / "later")
    later = EmbeddingTable.load(tmp_path / "later")
    vector = np.arange(4, dtype=np.float32)
    rows = later.later()._replace(types=["user"], keys=["folded"], vectors=vector[None], edges=np.array([5]))
    write_overlay(tmp_path / "later", later.with_overlay(rows))
    turn = turn_onto(earlier, later)
    write_turned(tmp_path, earlier, tmp_path / "later", turn)
    found = EmbeddingTable.load(tmp_path)
    np.testing.assert_allclose(found.vectors_of(found.rows("user", ["folded"]))[0], vector @ matrix.T, atol=1e-4)
    assert found.later().edges.tolist() == [5]


def test_a_model_goes_on_with_the_newer_table(directory, tmp_path):
    before = ntulm.load(directory)
    vectors, card = before.encode(POSTS), (directory / CARD).read_text()
    weights = sha256(directory / "model.safetensors")
    turned_table(directory, tmp_path / "later")
    for out, source in (("fresh", directory), ("again", tmp_path / "fresh")):
        words = ["refresh", str(source), "--table", str(tmp_path / "later"), "--out", str(tmp_path / out)]
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    said = "18 NTUs: 18 as before, 0 new; 0 are known no longer."
    assert said in (tmp_path / "again" / CARD).read_text()
    assert said.replace("18 as before, 0 new; 0", "15 as before, 3 new; 1") in (tmp_path / "fresh" / CARD).read_text()
    model = ntulm.load(tmp_path / "again")
    after = model.encode(POSTS)
    np.testing.assert_allclose(after[:3], vectors[:3], atol=2e-2)
    assert np.abs(after[3] - vectors[3]).max() > 1e-3
    assert [len(known) for known in model.known(POSTS)] == [3, 1, 0, 2]
    assert sha256(tmp_path / "again/model.safetensors") == weights
    assert version_of(tmp_path / "fresh") != version_of(directory)
    assert (directory / CARD).read_text() == card
    assert (tmp_path / "again" / CARD).read_text().count(HEADING) == 1
    report = model.add([{"text": "#ltag0 #ltag9", "author": "guest"}])
    assert report.added == {"user": 1}


def test_posts_tell_what_changes(directory, tmp_path, capsys):
    turned_table(directory, tmp_path / "later", noise=0.3)
    data = Layout().task("topic") / "side.parquet"
    refresh.run(str(directory), tmp_path / "later", tmp_path / "fresh", str(data), None)
    said = capsys.readouterr().out
    assert "| task | same labels | metric | before | newer table |" in said
    (row,) = [line for line in said.splitlines() if line.startswith("| topic |")]
    assert row.split(" | ")[2] == "macro_f1"
    assert said.splitlines()[1:] == (tmp_path / "fresh" / CARD).read_text().splitlines()[-len(said.splitlines()) + 1 :]


def test_the_commands_of_the_how_to_run_as_they_stand(directory):
    page = (Path(__file__).parent.parent / "docs/how-to/newer-graph.md").read_text(encoding="utf-8")
    layout = Layout()
    shutil.rmtree(layout.embeddings, ignore_errors=True)
    turned_table(directory, layout.embeddings)
    commands = re.findall(r"^ntulm (refresh .*)$", page, re.M)
    for command in commands:
        outcome = CliRunner().invoke(app, command.replace("topic.parquet", "side.parquet").split())
        assert outcome.exit_code == 0, outcome.exception
    assert len(ntulm.load("data/refreshed").table) == len(ntulm.load("data/measured").table) == 18


def test_what_does_not_fit_is_one_line_and_leaves_nothing(directory, tmp_path):
    def refuse(table, match, out=tmp_path / "out", posts=None, task=None):
        with pytest.raises(UserError, match=match) as found:
            refresh.run(str(directory), table, out, posts, task)
        assert "\n" not in str(found.value)
        assert not (tmp_path / "out").exists()

    later = tmp_path / "later"
    turned_table(directory, later)
    refuse(later, "is there already", out=directory)
    refuse(later, "--task: .*--posts", task="topic")
    refuse(tmp_path, "table.safetensors: not found")
    refuse(later, "none.csv", posts=str(tmp_path / "none.csv"))
    (later / OPERATORS_FILE).rename(later / "aside")
    refuse(later, "relations.safetensors: not found")
    (later / "aside").rename(later / OPERATORS_FILE)
    operators = Operators.load(later)
    for keys, dimension, match in (
        (["left0"], 6, "vectors of length 6; those of the model have 4"),
        (["left0", "left1"], 4, "2 NTUs in common; expected at least 8, 2 per dimension"),
    ):
        vectors = np.ones((len(keys), dimension), np.float32)
        write_table(later, ["user"] * len(keys), keys, vectors)
        refuse(later, match)
    write_table(later, ["user"], ["left0"], np.ones((1, 4), np.float32), {"user": "community"})
    refuse(later, "keys of user in the form 'community'; those of the model are")
    assert operators.rows == 18
