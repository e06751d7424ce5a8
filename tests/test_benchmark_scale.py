"""What a size costs, on paper: the page is what the script prints, and the script computes what it says."""

import pytest

from benchmarks import scale
from benchmarks.harness import ROOT


def test_the_page_is_what_the_script_prints():
    assert (ROOT / "docs/scale.md").read_text(encoding="utf-8") == scale.page()


@pytest.fixture
def one_per_second(monkeypatch):
    monkeypatch.setattr(scale, "CONSTANTS", {"x": scale.Constant(1.0, "posts/s", "x", scale.CPU, "")})


@pytest.mark.usefixtures("one_per_second")
def test_time_falls_with_the_cores_and_money_does_not():
    one = scale.on_cores("x", 3600)
    two = scale.on_cores("x", 3600, machines=2)
    assert one.hours == pytest.approx(scale.CORES / scale.MACHINE)
    assert two.hours == pytest.approx(one.hours / 2)
    assert two.dollars == pytest.approx(one.dollars) == pytest.approx(scale.CORES * scale.CORE_HOUR)


@pytest.mark.usefixtures("one_per_second")
def test_a_gpu_costs_by_the_hour():
    assert scale.on_gpu("x", 7200) == scale.Cost(2.0, 2 * scale.GPU_HOUR)


def test_the_papers_graph_has_the_papers_nodes():
    rows = scale.table_bytes(9e9) / ((scale.DIMENSION + 1) * 4)
    assert rows == pytest.approx(315e6)


def test_partitions_are_as_few_as_suffice():
    assert scale.partitions(1e7, scale.GPU_MEMORY) == 1
    number = scale.partitions(1e10, scale.GPU_MEMORY)
    assert scale.table_bytes(1e10) * 2 / number <= scale.GPU_MEMORY / 2 < scale.table_bytes(1e10) * 2 / (number // 2)


@pytest.mark.parametrize(("hours", "text"), [(1 / 3600, "1 s"), (0.5, "30 min"), (10, "10 h"), (240, "10 days")])
def test_times_have_a_unit_that_suits_them(hours, text):
    assert str(scale.Cost(hours, 12.0)) == f"{text}, $12"
