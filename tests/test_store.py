"""ntulm/inference/store.py and version.py: no row lost, none twice, whatever stops the one who adds."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntulm.errors import UserError
from ntulm.inference import store as store_module
from ntulm.inference.store import Rows, adding, open_store, width_of
from ntulm.inference.version import version_of

WIDTH = 4


def contents(posts):
    return np.array([value for _, value in posts], np.uint64)


def add(store, posts):
    """Posts as pairs of id and content; the vector is made of the content."""
    ids = [post_id for post_id, _ in posts]
    fresh = store.fresh(ids, contents(posts))
    chosen = [post for post, new in zip(posts, fresh, strict=True) if new]
    if chosen:
        vectors = np.array([[value] * store.width for _, value in chosen], np.float32)
        known = [[f"author:{post_id}"] for post_id, _ in chosen]
        store.add(Rows([post_id for post_id, _ in chosen], contents(chosen), vectors, known))
    return fresh.tolist()


def embed(path, posts, version="v", stop_after=None, width=WIDTH):
    """Add posts in chunks of three; stop dead after some chunks. The counts of a finished run."""
    with adding(path, version, width) as store:
        for number, at in enumerate(range(0, len(posts), 3)):
            if number == stop_after:
                raise Stopped
            add(store, posts[at : at + 3])
        store.finish()
        return store.counts


class Stopped(BaseException):
    pass


def stored(path, version="v"):
    rows = [row for row in pq.read_table(path).to_pylist() if row["model"] == version]
    for row in rows:
        assert row["vector"] == [float(row["content"])] * WIDTH
        assert row["known"] == [f"author:{row['post_id']}"]
    return sorted((row["post_id"], row["content"]) for row in rows)


POSTS = [(f"p{number}", number) for number in range(10)]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "deep" / "vectors.parquet"


def test_what_is_there_is_not_added_again(path):
    counts = embed(path, POSTS[:5])
    assert (counts.embedded, counts.there) == (5, 0)
    before = path.read_bytes()
    assert embed(path, POSTS[:5]).there == 5
    assert path.read_bytes() == before
    counts = embed(path, POSTS)
    assert (counts.embedded, counts.there) == (5, 5)
    assert stored(path) == POSTS
    assert [one.name for one in path.parent.iterdir()] == ["vectors.parquet"]
    assert width_of(open_store(path)) == WIDTH


def test_a_post_twice_in_the_input_is_one_row_and_a_changed_one_replaces_the_old(path):
    counts = embed(path, [*POSTS[:4], POSTS[0], ("p1", 99)])
    assert (counts.embedded, counts.repeated) == (4, 2)
    assert stored(path) == POSTS[:4]
    counts = embed(path, [("p1", 99), ("p2", 2)])
    assert (counts.embedded, counts.there, counts.changed) == (1, 1, 1)
    assert stored(path) == [("p0", 0), ("p1", 99), ("p2", 2), ("p3", 3)]


def test_versions_stand_side_by_side(path):
    embed(path, POSTS[:4])
    counts = embed(path, POSTS[:2], version="w")
    assert (counts.embedded, counts.there) == (2, 0)
    assert (stored(path), stored(path, "w")) == (POSTS[:4], POSTS[:2])
    embed(path, [("p1", 77)], version="w")
    assert (stored(path), stored(path, "w")) == (POSTS[:4], [("p0", 0), ("p1", 77)])


def test_a_run_that_was_stopped_is_taken_up(path, monkeypatch):
    embed(path, POSTS[:1])
    monkeypatch.setattr(store_module, "PART_SECONDS", 0.0)
    with pytest.raises(Stopped):
        embed(path, POSTS, stop_after=2)
    assert stored(path) == POSTS[:1]  # nothing half-done in the file
    counts = embed(path, POSTS)
    assert (counts.embedded, counts.there, counts.foreign) == (4, 6, 0)
    assert stored(path) == POSTS


def test_what_a_stopped_run_did_of_other_posts_is_not_added(path, monkeypatch):
    monkeypatch.setattr(store_module, "PART_SECONDS", 0.0)
    with pytest.raises(Stopped):
        embed(path, POSTS[:6], stop_after=1)
    counts = embed(path, [("p0", 0), ("p1", 55), ("q", 5)])
    assert (counts.embedded, counts.there, counts.foreign) == (2, 1, 2)
    assert stored(path) == [("p0", 0), ("p1", 55), ("q", 5)]


def test_parts_of_another_version_and_damaged_parts_are_not_used(path, monkeypatch):
    monkeypatch.setattr(store_module, "PART_SECONDS", 0.0)
    with pytest.raises(Stopped):
        embed(path, POSTS, version="w", stop_after=2)
    counts = embed(path, POSTS)
    assert (counts.embedded, counts.there, counts.foreign) == (10, 0, 0)
    assert (stored(path), stored(path, "w")) == (POSTS, [])
    with pytest.raises(Stopped):
        embed(path, [("n", 1), ("m", 2), ("o", 3), ("q", 4)], stop_after=1)
    (part,) = store_module.part_files(path.parent / ".vectors.parquet.parts")
    part.write_bytes(part.read_bytes()[:40])
    assert embed(path, [("n", 1)]).embedded == 1


def test_stopped_between_the_new_file_and_the_end_nothing_is_twice(path, monkeypatch):
    def fails(_):
        raise Stopped

    monkeypatch.setattr(shutil, "rmtree", fails)
    with pytest.raises(Stopped):
        embed(path, POSTS)
    monkeypatch.undo()
    counts = embed(path, POSTS)
    assert (counts.embedded, counts.there) == (0, 10)
    assert stored(path) == POSTS
    assert [one.name for one in path.parent.iterdir()] == ["vectors.parquet"]


chosen = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", "e"]), st.integers(0, 3)), max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(chosen, st.one_of(st.none(), st.integers(0, 3)), st.sampled_from(["v", "w"])), max_size=5))
def test_the_file_is_what_finished_runs_would_have_made(tmp_path_factory, runs):
    path = tmp_path_factory.mktemp("store") / "vectors.parquet"
    expected: dict[str, dict[str, int]] = {"v": {}, "w": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "PART_SECONDS", 0.0)
        patch.setattr(store_module, "RECENT", 2)
        for posts, stop_after, version in runs:
            try:
                embed(path, posts, version, stop_after)
            except Stopped:
                continue
            first: dict[str, int] = {}
            for post_id, value in posts:
                first.setdefault(post_id, value)
            expected[version] |= first
    for version, posts_of_version in expected.items():
        found = stored(path, version) if path.exists() else []
        assert found == sorted(posts_of_version.items())


def test_other_files_are_never_overwritten(path, tmp_path):
    path.parent.mkdir()
    for content in (b"notes", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged, or no Parquet file"):
            embed(path, POSTS)
        assert path.read_bytes() == content
    pq.write_table(pa.table({"post_id": ["a"], "vector": [1.0]}), path)
    with pytest.raises(UserError, match="but no store of vectors"):
        embed(path, POSTS)
    path.unlink()
    embed(path, POSTS)
    with pytest.raises(UserError, match="holds vectors of length 4, the model's have 8"):
        embed(path, POSTS, width=8)
    with pytest.raises(UserError, match=r"cannot be written"):
        embed(path / "below", POSTS)


def test_one_process_at_a_time_adds(path):
    with adding(path, "v", WIDTH) as store:
        add(store, POSTS[:3])
        with pytest.raises(UserError, match="another `ntulm embed` is adding to it"):
            embed(path, POSTS)
        store.finish()
    assert stored(path) == POSTS[:3]


def test_a_version_is_of_what_decides_vectors(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    (first / "classifiers").mkdir(parents=True)
    (first / "model.safetensors").write_bytes(b"weights")
    (first / "reading.json").write_text("{}")
    shutil.copytree(first, second)
    version = version_of(first)
    (second / "README.md").write_text("a card")
    (second / "classifiers/topic.topic.json").write_text("{}")
    assert version_of(second) == version
    (second / "reading.json").write_text('{"x": 1}')
    assert version_of(second) != version


def test_a_damaged_store_is_one_line_and_stays(path):
    embed(path, POSTS)
    whole, refused = path.read_bytes(), 0
    for place in range(4, len(whole) // 2, 7):  # pages; what is behind them says where they are
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        path.write_bytes(damaged)
        said = refusal(path)
        refused += said is not None
        assert said is None or ("damaged" in said and "\n" not in said and path.read_bytes() == damaged)
    assert refused


def refusal(path):
    try:
        embed(path, [("new", 1)])
    except UserError as error:
        return str(error)
    return None


def test_a_store_with_other_columns_is_none(path):
    path.parent.mkdir()
    right = store_module.schema(WIDTH)
    for number in range(len(right)):
        pq.write_table(right.remove(number).empty_table(), path)
        with pytest.raises(UserError, match="but no store of vectors"):
            embed(path, POSTS)


def test_a_damaged_note_on_the_parts_costs_the_parts(path):
    with pytest.raises(Stopped):
        embed(path, POSTS, stop_after=2)
    (path.parent / ".vectors.parquet.parts" / "about.json").write_text("{")
    assert embed(path, POSTS).embedded == len(POSTS)
