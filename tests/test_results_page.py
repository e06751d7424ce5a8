"""`results.html` as it is seen: in a browser without a network, at the width of a desk and of a telephone."""

import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import DESKTOP, PHONE, needs_browser, tab
from fake_run import EVALUATE, HERE, SCHEME, write_all

from ntulm.evaluate import stage as evaluate
from ntulm.report import stage as report
from ntulm.report.config import Report
from ntulm.report.provenance import keep_run, provenance

EARLIER = datetime(2020, 1, 1, tzinfo=UTC)
BOTH = "author+hashtag"
NO_COVERAGE_PAGE: Any = SimpleNamespace(write_coverage_page=lambda *_: False)  # Evidently takes its time
HOSTILE = "</li></svg><img src=x onerror=alert(1)><script>alert(2)</script> {{ 7 * 7 }} \u202e\x00\n#tag"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with a report on posts that mean harm, and a run before it."""
    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setitem(sys.modules, "ntulm.report.coverage_page", NO_COVERAGE_PAGE)
        run = write_all(root)
        for path in HERE.data("tasks").glob("*/*.parquet"):
            table = pq.read_table(path)
            place = table.schema.get_field_index("text")
            pq.write_table(table.set_column(place, "text", pa.array([HOSTILE] * len(table))), path)
        nodes = pq.read_table(HERE.nodes)
        keys = ["<b>bold" if key == "h1" else key for key in nodes["key"].to_pylist()]
        pq.write_table(nodes.set_column(1, "key", pa.array(keys)), HERE.nodes)
        better, text = (HERE.scores(name, 0, "hashtag") / f"{name}.hashtag.safetensors" for name in (BOTH, "text"))
        one, other = better.read_bytes(), text.read_bytes()
        better.write_bytes(other)  # in one task NTUs do harm
        text.write_bytes(one)
        evaluate.run(EVALUATE, run, SCHEME, HERE)
        keep_run("<h1>An earlier run</h1>", provenance(HERE, EARLIER), {"Topic map": 0.5}, HERE)
        report.run(Report(min_coverage=0.05, examples=5), run, SCHEME, HERE)
    return root


@pytest.fixture(scope="module", params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def opened(request):
    """A browser of each width."""
    with tab(request.param) as (page, faults):
        yield page, faults


@pytest.fixture
def seen(folder, opened):
    """The page, loaded anew, and its faults."""
    page, faults = opened
    faults.clear()
    page.goto((folder / "reports/results.html").as_uri())
    return page, faults


@needs_browser
@pytest.mark.slow
def test_pictures_come_first_and_letters_can_be_read(seen):
    page, faults = seen
    assert faults == []
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    top = page.evaluate("document.querySelector('img').getBoundingClientRect().top")
    tables = page.evaluate("[...document.querySelectorAll('table')].map(one => one.getBoundingClientRect().top)")
    assert len(tables) > 5
    assert all(top < table for table in tables)
    # 11 points of a figure that is 4.5 inches wide.
    widths = page.evaluate("[...document.images].map(one => one.getBoundingClientRect().width)")
    assert len(widths) == 5
    assert all(11 * width / (72 * 4.5) >= 11 for width in widths)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # the page itself never scrolls sideways


@needs_browser
@pytest.mark.slow
def test_posts_are_quoted_and_can_do_no_harm(seen):
    page, faults = seen
    assert faults == []
    assert page.locator("script, [onerror]").count() == 0
    assert page.locator(".right li").count() == page.locator(".wrong li").count() == 5
    assert page.locator(".right blockquote").first.inner_text().startswith("</li></svg><img src=x onerror=alert(1)>")
    assert "{{ 7 * 7 }}" in page.locator(".wrong blockquote").first.inner_text()
    assert "#&lt;b&gt;bold" in page.content()
    assert page.locator(".map b").count() == 0


@needs_browser
@pytest.mark.slow
def test_labels_of_the_map_never_overlap_and_zoom_gives_more(seen):
    page, _ = seen
    counts, sizes = [], []
    for zoom in (1, 2, 4):
        page.locator(f"#zoom{zoom}").check()
        boxes = page.evaluate(
            "[...document.querySelectorAll('.map text')].map(one => one.getBoundingClientRect())"
            ".filter(one => one.width > 0).map(one => [one.left, one.top, one.right, one.bottom])"
        )
        crossing = [
            (one, other)
            for place, one in enumerate(boxes)
            for other in boxes[:place]
            if one[0] < other[2] and one[2] > other[0] and one[1] + 3 < other[3] and one[3] > other[1] + 3
        ]
        assert crossing == []
        counts.append(len(boxes))
        sizes.append(boxes[0][3] - boxes[0][1])
    assert 0 < counts[0] <= counts[1] <= counts[2] == 50
    assert min(sizes) > 10
    assert max(sizes) < 1.2 * min(sizes)


@needs_browser
@pytest.mark.slow
def test_users_are_switched_on_and_have_no_names(seen):
    page, _ = seen
    users, hashtags = page.locator("g.layer2").first, page.locator("g.layer1").first
    assert hashtags.is_visible()
    assert not users.is_visible()
    page.get_by_label("user (200)").check()
    page.get_by_label("hashtag (50)").uncheck()
    assert users.is_visible()
    assert not hashtags.is_visible()
    assert users.locator("title").first.text_content().startswith("user, ")
    assert page.locator("g.layer2 text").count() == 0


@needs_browser
@pytest.mark.slow
def test_the_run_before_is_a_link_and_the_page_that_is_kept_quotes_nobody(seen, folder):
    page, faults = seen
    assert page.get_by_text("Topic map", exact=True).first.is_visible()  # what changed since
    page.get_by_role("link", name="the run before").click()
    assert page.locator("h1").inner_text() == "An earlier run"
    kept = max((folder / "data/runs").glob("*.html"))
    page.goto(kept.as_uri())
    assert page.locator("h1").inner_text() == "NTULM: results of a run"
    assert page.locator("blockquote").count() == 0
    assert "puts" in page.inner_text("body")  # how many posts were put right stays
    assert faults == []
