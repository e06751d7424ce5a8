"""ntulm/use/predict.py and output.py: the labels that `Model.predict` gives, as rows of a file or lines."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model

import ntulm
from ntulm.errors import UserError
from ntulm.inference.model import Prediction
from ntulm.layout import Layout
from ntulm.use import output, predict

POSTS = [
    {"post_id": "a", "text": "we like it", "author": "left1"},
    {"post_id": "b", "text": "we like it", "author": "right1"},
    {"post_id": "c", "text": "we \x1b[2J see", "author": "nobody"},
]


@pytest.fixture
def directory(lm_project, tiny_backbone) -> Path:
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    Path("p.jsonl").write_text("".join(json.dumps(post) + "\n" for post in POSTS) + "no\n")
    return layout.model


def run(directory, task="topic", threshold=None, top=None, out=None, source="p.jsonl"):
    predict.run(source, task, str(directory), threshold, top, None if out is None else Path(out))


def test_lines_on_standard_output_are_what_predict_says(directory, capsys):
    run(directory)
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    expected = ntulm.load(directory).predict(POSTS, "topic")
    assert [line["post_id"] for line in lines] == ["a", "b", "c"]
    assert [(line["labels"], line["known"]) for line in lines] == [(one.labels, one.known) for one in expected]
    assert [line["labels"] for line in lines[:2]] == [["left"], ["right"]]
    for line, one in zip(lines, expected, strict=True):
        assert line["probabilities"] == pytest.approx(one.probabilities, abs=1e-3)
        assert list(line["probabilities"])[0] == one.labels[0]  # noqa: RUF015
    assert "topic: 3 posts, 2 of them with NTUs that the model knows" in said.err
    assert "p.jsonl:4: not JSON" in said.err


def test_files_by_their_ending_say_the_same(directory, capsys):
    for ending in output.ENDINGS:
        run(directory, out=f"found{ending}", top=1)
    assert capsys.readouterr().out == ""
    lines = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
    rows = [row | {"probabilities": dict(row["probabilities"])} for row in pq.read_table("found.parquet").to_pylist()]
    cells = list(csv.DictReader(io.StringIO(Path("found.csv").read_text())))
    for line, row, cell in zip(lines, rows, cells, strict=True):
        assert len(line["probabilities"]) == 1
        assert row == line | {"probabilities": pytest.approx(line["probabilities"])}
        assert (cell["post_id"], [cell["labels"]], cell["known"] == "true") == (
            line["post_id"],
            line["labels"],
            line["known"],
        )
        assert json.loads(cell["probabilities"]) == line["probabilities"]


def test_thresholds():
    one = Prediction(["b"], {"a": 0.3, "b": 0.6, "c": 0.5}, known=True)
    assert predict.reaching(one, 0.4, "multi") == ["b", "c"]
    assert predict.reaching(one, 0.4, "single") == ["b"]
    assert predict.reaching(one, 0.7, "single") == []
    assert predict.likeliest(one, 2) == {"b": 0.6, "c": 0.5}
    assert list(predict.likeliest(one, None)) == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 1.5}, "--threshold 1.5: expected a probability"),
        ({"top": 0}, "--top 0: expected at least 1"),
        ({"out": "found.txt"}, r"--out found\.txt: expected a name that ends in \.parquet, \.csv, \.jsonl"),
        ({"task": "mood"}, "task 'mood': not in this model; it has topic"),
        ({"source": "nowhere.csv"}, "nowhere.csv: not found"),
        ({"out": "p.jsonl/found.csv"}, "cannot be written"),
    ],
)
def test_mistakes_are_said_and_leave_nothing(directory, values, message):
    with pytest.raises(UserError, match=message):
        run(directory, **values)
    assert not list(Path().glob("*found*"))


def test_several_labels_in_a_csv_are_json(tmp_path):
    schema = pa.schema([("labels", pa.list_(pa.string()))])
    with output.opened(tmp_path / "a.csv", schema) as written:
        written.write([{"labels": ["a", 'b "c"']}, {"labels": []}])
    cells = [row["labels"] for row in csv.DictReader((tmp_path / "a.csv").open())]
    assert [json.loads(cell) for cell in cells] == [["a", 'b "c"'], []]


def test_who_reads_standard_output_may_stop(tmp_path):
    code = (
        "from ntulm.use.output import opened\nimport pyarrow as pa\n"
        "with opened(None, pa.schema([])) as out:\n    for _ in range(9999): out.write([{'a': 1}] * 99)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b'{"a": 1}\n'
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 1
