import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.report.neighbours import Hashtags, draw_map, frequent_hashtags, neighbourhoods

HOSTILE = "</text><script>alert(1)</script>$x$"


def test_neighbours_are_the_nearest_by_cosine_and_never_the_hashtag_itself(tmp_path):
    names = ["a", "b", "c", "d"]
    vectors = np.array([[1, 0], [5, 1], [0, 2], [-1, 0]], np.float32)
    write_table(tmp_path, ["user", *["hashtag"] * 4], ["a", *names], np.vstack([[[9, 9]], vectors]).astype(np.float32))
    nodes = {"type": ["user", *["hashtag"] * 4], "key": ["a", *names], "degree": [99, 4, 3, 2, 1]}
    pq.write_table(pa.table(nodes), tmp_path / "nodes.parquet")
    found = neighbourhoods(frequent_hashtags(tmp_path / "nodes.parquet", EmbeddingTable.load(tmp_path)))
    assert [(one.hashtag, one.degree) for one in found] == [("a", 4), ("b", 3), ("c", 2), ("d", 1)]
    assert [name for name, _ in found[0].nearest] == ["b", "c", "d"]
    assert found[0].nearest[0][1] == np.float32(5 / np.sqrt(26))


def test_a_map_needs_some_hashtags_and_escapes_their_names(tmp_path):
    random = np.random.default_rng(0)
    few = Hashtags(["a"], [1], np.ones((1, 4), np.float32))
    assert not draw_map(few, tmp_path / "few.svg")
    names = [HOSTILE, *(f"tag{number}" for number in range(20))]
    many = Hashtags(names, list(range(21, 0, -1)), random.standard_normal((21, 4)).astype(np.float32))
    assert draw_map(many, tmp_path / "map.svg")
    text = (tmp_path / "map.svg").read_text()
    assert "<script" not in text
    assert "tag19" in text
    assert draw_map(many, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == text


def test_a_graph_without_hashtags_has_nothing_to_show(tmp_path):
    write_table(tmp_path, ["user"], ["a"], np.ones((1, 2), np.float32))
    pq.write_table(pa.table({"type": ["user"], "key": ["a"], "degree": [1]}), tmp_path / "nodes.parquet")
    hashtags = frequent_hashtags(tmp_path / "nodes.parquet", EmbeddingTable.load(tmp_path))
    assert neighbourhoods(hashtags) == []
    assert not draw_map(hashtags, tmp_path / "map.svg")
