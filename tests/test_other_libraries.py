"""docs/how-to/other-libraries.md: its blocks run, one after the other, on a model directory."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny_model
from sklearn.pipeline import Pipeline

from ntulm.layout import Layout

PAGE = Path(__file__).parent.parent / "docs/how-to/other-libraries.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


class BERTopic:
    """A stand-in that asks for embeddings as BERTopic does: of a pipeline, for texts alone."""

    def __init__(self, embedding_model):
        assert isinstance(embedding_model, Pipeline)
        self.embedding_model = embedding_model

    def fit_transform(self, documents, embeddings=None):
        assert all(isinstance(document, str) for document in documents)
        embeddings = self.embedding_model.transform(documents) if embeddings is None else embeddings
        assert embeddings.shape == (len(documents), 32)


def test_the_blocks_run_as_they_stand(lm_project, tiny_backbone, monkeypatch):
    for name in ("polars", "sentence_transformers"):
        pytest.importorskip(name)
    layout = Layout()
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    module: Any = ModuleType("bertopic")
    module.BERTopic = BERTopic
    monkeypatch.setitem(sys.modules, "bertopic", module)
    posts = [post for post in tiny_model.corpus_posts(layout, 0, 90) if post["author"]]
    names: dict[str, Any] = {"posts": posts, "sides": [post["author"].rstrip("0123456789") for post in posts]}
    seen: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, names)
        seen |= {name: names[name] for name in ("guess", "frame", "vectors") if name in names}
        if "polars" in block:
            assert names["frame"]["vector"].to_numpy().shape == (2, 32)
        elif "pandas" in block:
            assert list(names["frame"]["side"]) in (["right", "left"], ["right", "right"])
        elif "SentenceTransformer" in block:
            assert names["vectors"].shape == (2, 32)
    assert list(seen["guess"]) == ["right"]
    assert (seen["vectors"].dtype, seen["vectors"].shape) == (np.float32, (100, 32))
