"""Which posts have NTUs, and which NTUs the embedding table knows (the paper's Table 5, appendix A; pure functions)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntulm.embeddings.table import EmbeddingTable


def posts_with_known(
    table: EmbeddingTable, authors: Sequence[str | None], hashtags: Sequence[Sequence[str]]
) -> dict[str, NDArray[np.bool_]]:
    """For each NTU type, whether each post has at least one known NTU of that type: bool [posts]."""
    sizes = np.array([len(tags) for tags in hashtags], dtype=np.int64)
    known_tags = table.rows("hashtag", (tag for tags in hashtags for tag in tags)) >= 0
    owners = np.repeat(np.arange(len(hashtags)), sizes)
    has_known_tag = np.bincount(owners[known_tags], minlength=len(hashtags)) > 0
    return {"hashtag": has_known_tag, "user": table.rows("user", authors) >= 0}


def coverage_record(
    known: NDArray[np.bool_], ntus: Sequence[Sequence[tuple[str, str]]], identity: dict[str, Any]
) -> dict[str, Any]:
    """One row of Table 5 for one NTU type.

    The paper's caption says ">1 NTUs", "more than 1"; its figures (100 % of posts for authors) can only mean at least
    one, and so do these.

    Args:
        known: bool [posts], at least one known NTU.
        ntus: the (type, key) NTUs of each post.
        identity: what the row is about (data set, split, type).
    """
    posts = len(ntus)
    with_any = sum(1 for keys in ntus if keys)
    with_known = int(known.sum())
    return identity | {
        "posts": posts,
        "ntus": len({key for keys in ntus for key in keys}),
        "share_any": with_any / posts if posts else None,
        "share_known": with_known / posts if posts else None,
        "share_known_of_any": with_known / with_any if with_any else None,
    }
