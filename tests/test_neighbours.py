import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.report.neighbours import frequent_nodes, looks, most_used, neighbourhoods


def test_neighbours_are_the_nearest_by_cosine_and_never_the_hashtag_itself(tmp_path):
    names = ["a", "b", "c", "d"]
    vectors = np.array([[1, 0], [5, 1], [0, 2], [-1, 0]], np.float32)
    write_table(tmp_path, ["user", *["hashtag"] * 4], ["a", *names], np.vstack([[[9, 9]], vectors]).astype(np.float32))
    nodes = {"type": ["user", *["hashtag"] * 4], "key": ["a", *names], "degree": [99, 4, 3, 2, 1]}
    pq.write_table(pa.table(nodes), tmp_path / "nodes.parquet")
    found = neighbourhoods(frequent_nodes(tmp_path / "nodes.parquet", EmbeddingTable.load(tmp_path), "hashtag"))
    assert [(one.key, one.degree) for one in found] == [("a", 4), ("b", 3), ("c", 2), ("d", 1)]
    assert [name for name, _ in found[0].nearest] == ["b", "c", "d"]
    assert found[0].nearest[0][1] == np.float32(5 / np.sqrt(26))


def test_every_type_but_people_is_looked_at(tmp_path):
    types = ["user", "hashtag", "hashtag", "domain"]
    keys = ["ann", "a", "b", "news.org"]
    write_table(tmp_path, types, keys, np.eye(4).astype(np.float32))
    pq.write_table(pa.table({"type": types, "key": keys, "degree": [4, 3, 2, 1]}), tmp_path / "nodes.parquet")
    forms = {"user": "user", "hashtag": "hashtag", "domain": "domain", "place": "verbatim"}
    nodes = most_used(tmp_path / "nodes.parquet", EmbeddingTable.load(tmp_path))
    assert {name: of.keys for name, of in nodes.items()} == {
        "domain": ["news.org"],
        "hashtag": ["a", "b"],
        "user": ["ann"],
    }
    found = looks(nodes, forms)
    assert [(one.node_type, one.sign) for one in found] == [("domain", ""), ("hashtag", "#")]
    assert [one.key for one in found[1].neighbourhoods] == ["a", "b"]
