"""Which posts have NTUs, and which NTUs the embedding table knows (the paper's Table 5, appendix A; pure functions)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ntulm.embeddings.table import EmbeddingTable
from ntulm.ntus import NtuScheme, rows_of

ANY = "any"  # of the types below, in the place of a type


def coverage_of_types(
    table: EmbeddingTable, scheme: NtuScheme, ntus: pa.Array, roles: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of Table 5 for N posts: one per type of the roles, in alphabetical order, and one for any of them."""
    by_type: dict[str, list[str]] = {}
    for role in roles:
        by_type.setdefault(scheme.roles[role].type, []).append(role)
    groups = [*sorted(by_type.items()), (ANY, list(roles))]
    return [{"type": name} | coverage(table, scheme, ntus, of_type) for name, of_type in groups]


def coverage(table: EmbeddingTable, scheme: NtuScheme, ntus: pa.Array, roles: Sequence[str]) -> dict[str, Any]:
    """One row of Table 5: what share of posts have NTUs that play one of `roles`, and known ones.

    The paper's caption says ">1 NTUs", "more than 1"; its figures (100 % of posts for authors) can only mean at least
    one, and so do these.

    Args:
        table: says which NTUs are known.
        scheme: says the type of each role.
        ntus: N lists of type NTUS.
        roles: which count.
    """
    rows, offsets, places = rows_of(table, scheme, ntus, roles)
    owners = np.repeat(np.arange(len(ntus)), np.diff(offsets))
    posts, with_any, with_known = len(ntus), len(np.unique(owners)), len(np.unique(owners[rows >= 0]))
    pairs = ntus.flatten().take(pa.array(places)).to_pylist()
    return {
        "posts": posts,
        "ntus": len({(scheme.roles[pair["role"]].type, pair["key"]) for pair in pairs}),
        "share_any": with_any / posts if posts else None,
        "share_known": with_known / posts if posts else None,
        "share_known_of_any": with_known / with_any if with_any else None,
    }
