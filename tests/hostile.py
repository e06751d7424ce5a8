"""Records as nobody meant them: parts missing, of the wrong type, or junk. For the tests of readers."""

import copy
from typing import Any

from hypothesis import strategies as st

JUNK: list[Any] = [
    None, True, 0, -1, 3.5, 1e300, 10**30, "", " ", "x", "\x00", "2024-02-30", "infinity", "\U0001f600", "at://", "#",
    [], {}, [None], [[]], [{}], {"a": None}, {"$type": 5}, "did:plc:x", "<p>", "&#0;",
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in [(*path, key), *_places(item, (*path, key))]]


@st.composite
def mutated(draw: st.DrawFn, records: list[Any]) -> Any:
    """One of the records with up to four of its parts replaced or taken out."""
    record = {"record": copy.deepcopy(draw(st.sampled_from(records)))}
    for _ in range(draw(st.integers(0, 4))):
        places = _places(record)
        if not places:
            break
        *path, key = draw(st.sampled_from(places))
        holder: Any = record
        for step in path:
            holder = holder[step]
        if isinstance(holder, dict) and path and draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return record.get("record")


def lines(records: list[Any], fewest: int, most: int) -> st.SearchStrategy[list[Any]]:
    """Mutated records for the lines of a file, the first no list: a file that begins with one is a JSON array."""
    drawn = st.lists(mutated(records), min_size=fewest, max_size=most)
    return drawn.filter(lambda values: not isinstance(values[0], list))


def check_rows(rows: list[dict[str, Any]], count: int) -> None:
    """Each of the records is one row: a reject with nothing else, no post to keep, or what it says."""
    assert [row["line"] for row in rows] == list(range(1, count + 1))
    for row in rows:
        said = {key for key, value in row.items() if value is not None and key not in ("file", "line")}
        assert row["reject"] is None or said == {"reject"}
        if row["left_out"] is not None:
            assert row["text"] is None
            assert not row["is_repost"]
        assert row["is_favorite"] is None or (row["author"] is not None and row["reposted"]["post_id"] is not None)
