"""The benchmark of triples: both forms of files, ranks against a plain loop, what is learnt, and what it prints."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contracts import closure, imported

from benchmarks import triples as module
from benchmarks.triple_files import Triples, read_triples, remarks
from benchmarks.triples import main, rank, rank_by_popularity, table
from ntulm.embeddings import link_prediction
from ntulm.embeddings.link_prediction import Model
from ntulm.errors import UserError

BENCHMARKS = Path(module.__file__).parent
ENTITIES, RELATIONS = 5, 2
COMMUNITIES, KINDS, PEOPLE, THINGS = 20, 3, 8, 4
FACTS = st.lists(
    st.tuples(st.integers(0, ENTITIES - 1), st.integers(0, RELATIONS - 1), st.integers(0, ENTITIES - 1)),
    min_size=3,
    max_size=20,
)
OPENKE = {
    "entity2id.txt": "4\n/m/a\t2\n/m/b c\t0\n/m/d\t1\n/m/e\t3\n",
    "relation2id.txt": "2\nlikes\t0\nknows\t1\n",
    "train2id.txt": "3\n0 1 0\n2 3 1\n2 3 1\n",  # head, tail, relation
    "valid2id.txt": "1\n1 1 0\n",
    "test2id.txt": "2\n0 2 1\n0 1 0\n",
}
PLAIN = {
    "train.txt": "ann\tknows\tbob\nbob\tknows\tann\nann\tlikes\ttea \n",
    "valid.txt": "",
    "test.txt": "bob\tlikes\ttea \n\ncid\tknows\tann",
}


pytestmark = pytest.mark.usefixtures("one_thread")


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_openke_has_the_relation_last(tmp_path):
    triples = read_triples(write(tmp_path / "kg", OPENKE | PLAIN))  # with both forms, OpenKE's
    assert triples.train.tolist() == [[0, 0, 1], [2, 1, 3], [2, 1, 3]]
    assert triples.valid.tolist() == [[1, 0, 1]]
    assert triples.test.tolist() == [[0, 1, 2], [0, 0, 1]]
    assert (triples.entities, triples.relations) == (4, 2)
    counts = (
        "Repeated lines, kept: 1 of train, 0 of valid, 0 of test. Test triples that are trained on: 1; with an entity"
    )
    assert remarks(triples) == f"{counts} or a relation that is not: 0."


def test_plain_files_have_names_and_the_relation_between(tmp_path):
    triples = read_triples(write(tmp_path / "kg", PLAIN))
    assert triples.train.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 2]]
    assert triples.valid.shape == (0, 3)
    assert triples.test.tolist() == [[1, 1, 2], [3, 0, 0]]
    assert (triples.entities, triples.relations) == (4, 2)
    assert "with an entity or a relation that is not: 1." in remarks(triples)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train2id.txt", "4\n0 1 0\n2 3 1\n2 3 1\n", "the first line says that 4 lines follow, there are 3"),
        ("train2id.txt", "0 1 0\n2 3 1\n", "line 1: needed is the number of lines"),
        ("train2id.txt", "", "empty"),
        ("train2id.txt", "0\n", "no triple in the file of train"),
        (
            "train2id.txt",
            "1\n0 3 2\n",
            "line 2: relation 2, the third number being the relation; needed are numbers from 0 to 1",
        ),
        ("train2id.txt", "1\n0 4 0\n", "line 2: tail 4"),
        ("test2id.txt", "1\n-1 0 0\n", "line 2: head -1"),
        ("test2id.txt", "1\n0 0\n", "line 2: needed are three numbers"),
        ("test2id.txt", "1\n0 x 0\n", "line 2: needed are three numbers"),
        ("entity2id.txt", "3\na\t0\nb\t1\nc\t3\n", "line 4: number 3; needed are numbers from 0 to 2, without gaps"),
        ("entity2id.txt", "2\na\t0\nb\t0\n", "line 3: number 0 stands here twice"),
        ("entity2id.txt", "1\nname\n", "line 2: needed are a name and its number"),
        ("relation2id.txt", None, "relation2id.txt: not found"),
    ],
)
def test_broken_openke_files_are_one_line(tmp_path, file, text, message):
    folder = write(tmp_path / "kg", OPENKE)
    (folder / file).unlink() if text is None else (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_triples(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"a\tb", "line 2: 2 fields"),
        (b"a\t\tb", "line 2: 3 fields"),
        (b"a b c", "line 2: 1 fields"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_broken_plain_files_are_one_line(tmp_path, line, message):
    folder = write(tmp_path / "kg", PLAIN)
    (folder / "test.txt").write_bytes(b"a\tb\tc\n" + line + b"\n")
    with pytest.raises(UserError, match=message):
        read_triples(folder)


def plain_rank(scores: list[float], answer: int, true: set[int]) -> float:
    others = [score for place, score in enumerate(scores) if place != answer and place not in true]
    return 1 + sum(score > scores[answer] for score in others) + sum(score == scores[answer] for score in others) / 2


@settings(deadline=None)  # machines are busy
@given(facts=FACTS, seed=st.integers(0, 9), cells=st.sampled_from([1, 7, 1000]))
def test_ranks_equal_a_plain_loop(facts, seed, cells):
    random = np.random.default_rng(seed)  # small integers: exact scores, and ties
    vectors = random.integers(-1, 2, (ENTITIES, 3)).astype(np.float32)
    moves = random.integers(-1, 2, (RELATIONS, 3)).astype(np.float32)
    train, valid, test = (np.array(facts[start::3], np.int64) for start in range(3))
    triples = Triples(train, valid, test, ENTITIES, RELATIONS, "made")
    expected: dict[str, list[float]] = {"heads": [], "tails": [], "heads given out": [], "tails given out": []}
    popular = []
    for h, r, t in test.tolist():
        true = {one for one, rel, other in facts if (rel, other) == (r, t)}
        scores = [float(one @ (vectors[t] + moves[r])) for one in vectors]
        expected["heads"].append(plain_rank(scores, h, true))
        expected["heads given out"].append(plain_rank(scores, h, true | {t}))
        true = {other for one, rel, other in facts if (one, rel) == (h, r)}
        scores = [float(vectors[h] @ (one + moves[r])) for one in vectors]
        expected["tails"].append(plain_rank(scores, t, true))
        expected["tails given out"].append(plain_rank(scores, t, true | {h}))
        count = [float(sum(rel == r and other == one for _, rel, other in train)) for one in range(ENTITIES)]
        popular.append(plain_rank(count, t, true))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link_prediction, "SCORE_CELLS", cells)
        model = Model({module.TYPE: vectors}, moves)
        found = {"": rank(triples, model, given_out=False), " given out": rank(triples, model, given_out=True)}
        by_popularity = rank_by_popularity(triples)
    for name, ranks in found.items():
        assert ranks.heads.tolist() == expected[f"heads{name}"]
        assert ranks.tails.tolist() == expected[f"tails{name}"]
    assert by_popularity.tails.tolist() == popular


def test_the_table_is_over_both_sides():
    ranks = module.Ranks(np.array([1.0, 2.0]), np.array([10.5, 10.0]))
    rows = table(ranks, module.Ranks(np.ones(2), np.ones(2)), module.Ranks(np.ones(2), np.full(2, 4.0))).splitlines()
    assert rows[2] == "| both | 0.4238 | 0.2500 | 0.7500 | 1.0000 | 0.6250 |"  # (1 + 1/2 + 2/21 + 1/10) / 4
    assert rows[3] == "| heads | 0.7500 | 0.5000 | 1.0000 | 1.0000 | 1.0000 |"
    assert rows[4] == "| tails | 0.0976 | 0.0000 | 0.5000 | 1.0000 | 0.2500 |"


def made_facts() -> dict[str, str]:
    """People use things of their community, by a relation per kind of thing."""
    lines = np.array(
        [
            f"person {community}.{person}\tuses {kind}\tthing {community}.{kind}.{thing}\n"
            for community in range(COMMUNITIES)
            for kind in range(KINDS)
            for person in range(PEOPLE)
            for thing in range(THINGS)
        ]
    )
    part = np.random.default_rng(0).choice(3, size=len(lines), p=[0.7, 0.1, 0.2])
    return {f"{name}.txt": "".join(lines[part == place]) for place, name in enumerate(("train", "valid", "test"))}


def test_communities_are_learnt(tmp_path, capsys):
    folder = write(tmp_path / "kg", made_facts())
    sizes = {"dimension": 8, "epochs": 20, "batch-size": 100, "batch-negatives": 20, "uniform-negatives": 80}
    main([str(folder), *(f"--{name}={value}" for name, value in sizes.items())])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    found = {row[0]: row[1:] for row in rows}
    assert found["torch"][0] == "CPU"
    assert float(found["torch"][1].replace(",", "")) > 0
    for name in ("heads", "tails"):  # popularity knows no communities
        assert float(found[name][0]) > 2 * float(found[name][4]), (name, found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "neither train2id.txt"),
        (["nowhere", "--batch-negatives", "300"], "--batch-size must be a multiple of --batch-negatives"),
        (["nowhere", "--epochs", "0"], "must be 1 or more"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(SystemExit, match=message) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


def test_needs_few_packages():
    names = {
        name for file in ("triples", "triple_files", "synthetic_graph") for name in imported(BENCHMARKS / f"{file}.py")
    }
    files = {path for name in names if name.startswith("ntulm.") for path in closure(name)}
    assert BENCHMARKS.parent / "ntulm/embeddings/torch_engine.py" in files
    packages = {name.partition(".")[0] for name in names.union(*map(imported, files))} - sys.stdlib_module_names
    assert packages == {
        "ntulm",
        "benchmarks",
        "numpy",
        "torch",
        "h5py",
        "torchbiggraph",
    }  # the last one where it is asked for
