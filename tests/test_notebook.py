"""docs/tutorial.ipynb runs from its first cell to its last, on a tiny model."""

import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model

from ntulm.layout import Layout

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs/tutorial.ipynb"


def outputs(cell) -> str:
    return "".join(one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell.get("outputs", []))


@pytest.mark.slow
def test_it_runs_and_says_what_it_found(lm_project, tiny_backbone, monkeypatch):
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    posts = pq.read_table(layout.posts).to_pylist()
    sides = [(post["author"] or "left0").rstrip("0123456789") for post in posts]
    rows = [{"post_id": post["post_id"], "field": "topic", "value": side}
            for post, side in zip(posts, sides, strict=True)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), layout.corpus / "labels.parquet")
    monkeypatch.setenv("NTULM_PROJECT", str(lm_project))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    said = "\n".join(outputs(cell) for cell in notebook.cells)
    assert "variant: author+hashtag" in said
    assert "(300, 200, ['left', 'right'])" in said
    assert "vectors: (3, 32) float32" in said
    assert "known NTUs: [0, 1]" in said
    assert "5-fold cross-validation" in said
    shares = re.findall(r"of 200 later posts (\d+)% are right", said)
    assert len(shares) == 2  # by `ntulm train-classifier` and by scikit-learn
    assert min(map(int, shares)) > 70  # the author tells the side
