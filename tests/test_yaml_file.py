"""YAML that cannot be read: one line with its place."""

import pytest

from ntulm.configure import configured
from ntulm.corpus.sources.world import load_world
from ntulm.errors import UserError
from ntulm.params import load_params
from ntulm.yaml_file import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: 1\nfrom: 2016-02-30\n", "line 2: 2016-02-30: no such date"),
        (b"from: [0.1, 2016-13-01]\n", "line 1: 2016-13-01: no such date"),
        (b"a: [\n", "not valid YAML"),
        (b"a: \xff\n", "not valid YAML"),
        (b"[" * 400, "not valid YAML"),
        (b"a: 2016-02-28T25:00:00Z\n", "not valid YAML"),
        (b"a: !!bool maybe\n", "a tag"),
        (b"a: !!int ''\n", "a tag"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(text, message, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    for read in (read_yaml, load_params, load_world):
        with pytest.raises(UserError) as error:
            read(path)
        assert f"{path}: " in str(error.value)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_what_can_be_read_is_read():
    assert parse_yaml("a: 2016-02-29\nb: '2016-02-30'\n", "x")["b"] == "2016-02-30"


@pytest.mark.parametrize("value", ["2016-02-30", "'2016-02-30'", "'2016-02-03T25:00:00Z'", "2016-02-30T00:00:00Z"])
def test_a_cut_at_a_day_that_is_in_no_calendar_is_refused_in_one_line(value, tmp_path, monkeypatch):
    path = tmp_path / "params.yaml"
    path.write_text(configured("quickstart", []).replace("graph_until: 0.7", f"graph_until: {value}"))
    with pytest.raises(UserError) as error:
        load_params(path)
    assert "params.yaml" in str(error.value)
    assert "no such date" in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such date"):
        configured(".", ["run.seeds=[1]"])
    with pytest.raises(UserError, match="no such date"):
        configured("quickstart", [f"corpus.splits.graph_until={value}"])
