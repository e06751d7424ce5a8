"""What the UI shows of the results."""

from flows.artifacts import coverage_rows, with_absolute_links


def test_relative_links_point_to_where_the_reports_are_served():
    text = "![Figure 3](figure3.png) [page](coverage.html) [web](https://a.org/x.png) [top](#top) [root](/etc/passwd)"
    expected = text.replace("(figure3", "(http://h/figure3").replace("(coverage", "(http://h/coverage")
    assert with_absolute_links(text, "http://h") == expected


def test_coverage_is_a_table_of_names_and_percentages():
    row = {"dataset": "topic", "split": "test", "type": "user", "posts": 150, "ntus": 7, "share_any": 1.0,
           "share_known": 0.7133, "share_known_of_any": None, "family": "Topic"}  # fmt: skip
    assert coverage_rows({"coverage": [row]}) == [
        {"dataset": "topic", "split": "test", "type": "user", "posts": 150, "ntus": 7,
         "share_any": "100.0%", "share_known": "71.3%"}
    ]  # fmt: skip
