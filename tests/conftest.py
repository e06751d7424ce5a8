"""Fixtures that several test files share."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from tiny_backbone import FILLERS, SECRETS, write_backbone

settings.register_profile("ntulm", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("ntulm")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> Path:
    """A model directory that is made in a moment."""
    directory: Path = tmp_path_factory.mktemp("tiny") / "backbone"
    write_backbone(directory)
    return directory


@pytest.fixture
def adapt_settings(tiny_backbone) -> Callable[..., Any]:
    """Makes the section `adapt`, with changes by keyword."""
    from ntulm.language_model.config import Adapt

    values = {
        "backbone": str(tiny_backbone),
        "max_posts": 64,
        "max_validation_posts": 32,
        "epochs": 1,
        "patience": 2,
        "evaluations_per_epoch": 1,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "warmup_share": 0.1,
        "mask_share": 0.15,
        "seed": 0,
    }
    return lambda **changes: Adapt(**{**values, **changes})


@pytest.fixture
def lm_project(tmp_path, monkeypatch) -> Path:
    """A project (and the cwd) whose posts hold a word that only the author tells: a corpus and a table."""
    monkeypatch.chdir(tmp_path)
    write_lm_project(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def served_directory(tmp_path_factory, tiny_backbone) -> Path:
    """A model directory for the tests of the server, none of which changes it."""
    import tiny_model

    from ntulm.layout import Layout

    layout = Layout(tmp_path_factory.mktemp("served"))
    write_lm_project(layout.root)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    return layout.model


def write_lm_project(root: Path) -> None:
    """The corpus and the table of `lm_project`."""
    from ntulm.embeddings.table import write_table

    random = np.random.default_rng(0)
    authors = [f"{side}{number}" for side in SECRETS for number in range(4)]
    posts = [_post(number, str(random.choice(authors)), random) for number in range(900)]
    folder = root / "data" / "corpus"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(posts), folder / "posts.parquet")
    names = ["train"] * 700 + ["validation"] * 100 + ["test"] * 100
    splits = [{"post_id": post["post_id"], "split": name} for post, name in zip(posts, names, strict=True)]
    pq.write_table(pa.Table.from_pylist(splits), folder / "splits.parquet")
    (root / "data" / "embeddings").mkdir()
    sides = np.eye(2, 4)[[int(author.startswith("right")) for author in authors]]
    vectors = (sides + 0.01 * random.standard_normal(sides.shape)).astype(np.float32)
    write_table(root / "data" / "embeddings", ["user"] * len(authors), authors, vectors)


def _post(number: int, author: str, random: np.random.Generator) -> dict:
    secret = SECRETS["left" if author.startswith("left") else "right"]
    words = [str(word) for word in random.choice(FILLERS, int(random.integers(2, 7)))]
    return {
        "post_id": f"p{number:05d}",
        "created_at": datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
        "text": " ".join([*words, secret, "#so" if number % 3 == 0 else "so"]),
        "author": None if number % 50 == 7 else author,
        "hashtags": ["so"] if number % 3 == 0 else [],
    }


@pytest.fixture
def one_thread():
    """Torch on one thread: for small products, threads cost more than they give."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
