"""What `make fuzz` damages: for each target small valid examples, made up here, and how they are read.

Examples are folders in the folder that is given; any of their files is damaged. A reader takes the damaged folder.
What takes long to import is imported by the targets that need it.
"""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

import ntulm
from flows import mending
from ntulm.configure import configured
from ntulm.corpus import forget
from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.inference.rows import columns_of, fields_in, read_rows
from ntulm.inference.search import nearest_posts, vector_of
from ntulm.inference.store import Rows, adding
from ntulm.layout import Layout
from ntulm.params import load_params
from ntulm.tasks.records import columns, records

KEYS = ["alice", "bob", "café", "x" * 40]


def exports(folder: Path) -> None:
    """One of each format."""
    import test_sources_counts as sources

    for number, (name, write) in enumerate(sources.EXPORTS.items()):
        own = folder / f"{number:02d}-{name[0]}"
        own.mkdir()
        write(own)


def packed_exports(folder: Path) -> None:
    """The same, compressed and in archives."""
    import test_sources_counts as sources

    text = sources.v1_objects(folder).read_bytes()
    (folder / "export.jsonl").unlink()
    for name, content in {"gz": gzip.compress(text), "zst": zstandard.compress(text), "zip": b"", "tar": b""}.items():
        own = folder / name
        own.mkdir()
        (own / f"export.jsonl.{name}").write_bytes(content)
    with zipfile.ZipFile(folder / "zip/export.jsonl.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tweets.jsonl", text)
    with tarfile.open(folder / "tar/export.jsonl.tar", "w") as archive:
        about = tarfile.TarInfo("tweets.jsonl")
        about.size = len(text)
        archive.addfile(about, io.BytesIO(text))


def parquet_exports(folder: Path) -> None:
    """Tables in Parquet."""
    moments = [datetime(2024, 5, 1, tzinfo=UTC) + timedelta(days=day) for day in range(50)]
    texts = [f"a post of day {day}" for day in range(50)]
    by, seen = ["ann", None] * 25, ["public", "private"] * 25
    plain = {"at": moments, "text": texts, "by": by, "copy": [0, 1] * 25, "seen": seen}
    for name, how in (("zstd", {"compression": "zstd"}), ("plain", {"compression": "none", "use_dictionary": False})):
        (folder / name).mkdir()
        pq.write_table(pa.table(plain), folder / name / "export.parquet", **how)


def read_an_export(folder: Path) -> None:
    """Each record has one fate."""
    import test_sources_counts as sources

    from ntulm.corpus.records import FATES, read_export

    for path in sorted(folder.iterdir()):
        mapping = sources.MAPPING if path.suffix in (".csv", ".parquet") else None
        with read_export(path, "auto", mapping, [], "id", folder.parent / "spill") as export:
            counts = export.counts
            assert counts["read"] == sum(counts[fate] for fate in FATES), counts
            export.connection.execute("SELECT * FROM post").fetchall()


def params(folder: Path) -> None:
    """Recipes, written out."""
    (folder / "quickstart").mkdir()
    (folder / "quickstart/params.yaml").write_text(configured("quickstart", []), encoding="utf-8")


def locks(folder: Path) -> None:
    """A project of DVC that is in use."""
    own = folder / "project"
    (own / ".dvc/tmp").mkdir(parents=True)
    (own / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  corpus:\n    cmd: python -m ntulm corpus\n    params:\n      params.yaml:\n"
        "        corpus:\n          path: raw\n    outs:\n    - path: data/corpus\n      hash: md5\n"
        "      md5: 0123456789abcdef0123456789abcdef.dir\n      size: 10\n      nfiles: 2\n"
    )
    used = {"write": {"/data": {"pid": 1, "cmd": "dvc repro"}}, "read": {"/raw": [{"pid": 1, "cmd": "dvc repro"}]}}
    (own / ".dvc/tmp/rwlock").write_text(json.dumps(used))


def mend_locks(folder: Path) -> None:
    """What is left is whole."""
    mending.WAIT_SECONDS = 0.0
    mending.mend(folder, lambda line: None)
    mending.mend(folder, _no_line)


def _no_line(line: str) -> None:
    raise AssertionError(f"not mended at once: {line}")


def tables(folder: Path) -> None:
    """An embedding table, and one with an overlay."""
    chance = np.random.default_rng(0)
    for name in ("plain", "dated"):
        (folder / name).mkdir()
        write_table(folder / name, ["user", "user", "hashtag", "user"], KEYS, chance.random((4, 8), np.float32))


def read_a_table(folder: Path) -> None:
    """Known keys have rows, rows have vectors."""
    table = EmbeddingTable.load(folder)
    for ntu_type in ("user", "hashtag"):
        rows = table.rows(ntu_type, [*KEYS, None, "nobody"])
        assert rows.shape == (6,)
        assert table.vectors_of(rows).shape == (6, table.dimension)


def checkpoints(folder: Path) -> None:
    """Of a training run."""
    import torch

    from ntulm.language_model.checkpoint import Checkpoint

    tensors = {"weight.a": torch.arange(40.0).reshape(8, 5), "best.a": torch.ones(8, 5)}
    Checkpoint(folder / "run/own", "f").write(tensors, {"step": 3, "history": [{"step": 1, "bits": 2.0}]})


def read_a_checkpoint(folder: Path) -> None:
    """All as it was written, or nothing."""
    from ntulm.language_model.checkpoint import Checkpoint

    found = Checkpoint(folder / "own", "f").read()
    assert found is None or (set(found[0]) == {"weight.a", "best.a"} and found[1]["step"] == 3)


def vectors(folder: Path) -> None:
    """Of a task, as `encode` writes them."""
    from safetensors.numpy import save_file

    (folder / "text").mkdir()
    chance = np.random.default_rng(0)
    tensors = {name: chance.random((9, 8)).astype(np.float16) for name in ("vectors", "ntu")}
    save_file(tensors, folder / "text/topic.safetensors")


def read_vectors(folder: Path) -> None:
    """All systems have as many rows."""
    from ntulm.probe.stage import systems

    found = systems(folder / "topic.safetensors", "text")
    assert len({len(system.features) for system in found}) == 1


def models(folder: Path) -> None:
    """A model directory; the backbone stays outside."""
    import tiny_backbone
    import tiny_model
    from conftest import write_lm_project

    layout, backbone = Layout(folder.parent / "made"), folder.parent / "backbone"
    layout.root.mkdir()
    write_lm_project(layout.root)
    tiny_backbone.write_backbone(backbone)
    tiny_model.build(tiny_model.params_of("adapt.backbone=" + str(backbone)), str(backbone), layout)
    layout.model.replace(folder / "model")


def read_a_model(folder: Path) -> None:
    """It answers."""
    model = ntulm.load(str(folder), "cpu")
    posts = [{"text": "i like it", "author": "left0", "hashtags": ["so"]}, {"text": ""}]
    assert len(model.encode(posts)) == 2
    for task in model.tasks:
        assert len(model.predict(posts, task)) == 2


def stores(folder: Path) -> None:
    """Vectors of posts: a store, and the parts that a killed run left."""
    for name, finished in (("whole", True), ("parts", False)):
        (folder / name).mkdir()
        with adding(folder / name / "store.parquet", "v1", 4) as store:
            ids, content = [f"p{number}" for number in range(20)], np.arange(20, dtype=np.uint64)
            store.fresh(ids, content)
            store.add(Rows(ids, content, np.ones((20, 4), np.float32), [["author:x"]] * 20))
            if finished:
                store.finish()


def read_a_store(folder: Path) -> None:
    """Searched, then added to."""
    path = folder / "store.parquet"
    if path.exists():
        nearest_posts(path, "v1", np.ones(4, np.float32), 3)
        vector_of(path, "v1", "p3")
    with adding(path, "v1", 4) as store:
        ids, content = ["p3", "new"], np.array([3, 99], np.uint64)
        chosen = [number for number, fresh in enumerate(store.fresh(ids, content)) if fresh]
        assert 1 in chosen
        if chosen:
            own = [ids[number] for number in chosen]
            store.add(Rows(own, content[chosen], np.ones((len(chosen), 4), np.float32), [[]] * len(chosen)))
        store.finish()
    vector_of(path, "v1", "new")


def posts(folder: Path) -> None:
    """What `ntulm embed` and tasks are given: CSV, JSON lines, Parquet."""
    rows = [{"id": str(n), "text": f"post {n} #so", "author": "ann", "label": "x" if n % 2 else "y"} for n in range(30)]
    for name in ("csv", "jsonl", "parquet"):
        (folder / name).mkdir()
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (folder / "csv/posts.csv").write_text("\n".join(lines) + "\n")
    (folder / "jsonl/posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), folder / "parquet/posts.parquet")


def read_rows_of_posts(folder: Path) -> None:
    """Every row is a post or named."""
    for path in folder.iterdir():
        for part in read_rows(path, fields_in(columns_of(path))):
            assert part is not None


def read_labels(folder: Path) -> None:
    """As a task of the kind `table` reads them."""
    for path in folder.iterdir():
        columns(path)
        for row in records(path, ["text", "label"]):
            assert all(isinstance(value, str) for value in row.values.values())


def forgotten(folder: Path) -> None:
    """The list of what is not read again."""
    (folder / "list").mkdir()
    (folder / "list/forget.txt").write_text("# kept\nauthor alice\npost 17\n", encoding="utf-8")


Target = tuple[Callable[[Path], None], Callable[[Path], Any]]
TARGETS: dict[str, Target] = {
    "exports": (exports, read_an_export),
    "packed": (packed_exports, read_an_export),
    "parquet": (parquet_exports, read_an_export),
    "posts": (posts, read_rows_of_posts),
    "labels": (posts, read_labels),
    "forget": (forgotten, lambda folder: forget.read(folder / "forget.txt")),
    "params": (params, lambda folder: load_params(folder / "params.yaml")),
    "locks": (locks, mend_locks),
    "table": (tables, read_a_table),
    "vectors": (vectors, read_vectors),
    "checkpoint": (checkpoints, read_a_checkpoint),
    "model": (models, read_a_model),
    "store": (stores, read_a_store),
}
