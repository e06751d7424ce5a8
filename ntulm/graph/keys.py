"""The key forms of `ntulm/text.py` over columns: what `keys_of_FORM` of the graph's SQL does, whatever the engine.

Library of the stage `graph`. It needs pyarrow and numpy alone: Spark runs it in processes of its own.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import pyarrow as pa

from ntulm.ntus import keys_of

REMEMBERED = 1 << 16  # values of a field whose keys are remembered: few values are most of those used


def keys_of_lists(keys_of_value: Callable[[str], list[str]], lists: pa.ListArray) -> pa.ListArray:
    """The keys of each list of values, in order, none twice; each distinct value is read once."""
    rows = lists.to_pylist()
    found = [list(dict.fromkeys(key for value in row if value for key in keys_of_value(value))) for row in rows]
    return pa.array(found, pa.list_(pa.string()))


@lru_cache
def reader(form: str) -> Callable[[str], list[str]]:
    """From a value to its keys, by a key form; it remembers values, for as long as the process lives."""
    return lru_cache(REMEMBERED)(partial(keys_of, form=form))
