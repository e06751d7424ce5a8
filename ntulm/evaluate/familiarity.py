"""How far test posts are from what the graph was made of: days since its end, and the author's posts in it.

Reads `data/corpus/posts.parquet` and `splits.parquet`. Library of the stage `evaluate`. The gain by these groups says
how long a graph keeps, and whom it serves.

N posts, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ntulm.layout import Layout

DAYS, POSTS = "days since the graph's end", "posts of the author in the graph"
# Of each, the first value of a group and its name; what is below the first group is in the graph's own time.
GROUPS: Mapping[str, Sequence[tuple[int, str]]] = {
    DAYS: ((0, "under 30"), (30, "30 to 89"), (90, "90 to 179"), (180, "180 or more")),
    POSTS: ((0, "none"), (1, "1 to 3"), (4, "4 to 20"), (21, "21 or more")),
}
DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Graph:
    """The posts that the graph was made of."""

    end: np.datetime64 | None  # None: there are none
    posts_of: Mapping[str, int]  # author -> how many
    written: Mapping[str, np.datetime64]  # of every post of the corpus with a time

    @classmethod
    def read(cls, layout: Layout) -> Graph | None:
        """Of the corpus; None if it is not there (other stages' outputs alone were brought here)."""
        if not layout.posts.is_file() or not layout.splits.is_file():
            return None
        posts = pq.read_table(layout.posts, columns=["post_id", "author", "created_at"])
        inside = posts.filter(pq.read_table(layout.splits, columns=["graph"])["graph"])
        counts = pc.value_counts(inside["author"].drop_null())
        timed = posts.filter(posts["created_at"].is_valid())
        times = timed["created_at"].cast(pa.timestamp("us")).to_numpy()
        end = pc.max(inside["created_at"].cast(pa.timestamp("us"))).as_py()
        return cls(
            None if end is None else np.datetime64(end),
            dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)),
            dict(zip(timed["post_id"].to_pylist(), times, strict=True)),
        )

    def groups(self, posts: pa.Table) -> dict[tuple[str, str], NDArray[np.bool_]]:
        """Which of N posts (columns `post_id`, `author`) are in each group: bool [N]; groups without a post left out.

        A post that is not of the corpus has no time, and one without an author no group of authors.
        """
        found = {DAYS: self._days(posts["post_id"].to_pylist()), POSTS: self._posts(posts["author"].to_pylist())}
        return {
            (by, name): chosen
            for by, bounds in GROUPS.items()
            for (first, name), below in zip(bounds, [*(low for low, _ in bounds[1:]), np.inf], strict=True)
            if (chosen := (found[by] >= first) & (found[by] < below)).any()
        }

    def _days(self, post_ids: list[str]) -> NDArray[np.float64]:
        if self.end is None:
            return np.full(len(post_ids), np.nan)
        return np.array([(self.written[one] - self.end) / DAY if one in self.written else np.nan for one in post_ids])

    def _posts(self, authors: list[str | None]) -> NDArray[np.float64]:
        return np.array([np.nan if author is None else self.posts_of.get(author, 0) for author in authors], np.float64)


def about(by: str, name: str, known: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """What a record of a group begins with."""
    return {"by": by, "group": name, "posts": int(chosen.sum()), "known": float(known[chosen].mean())}
