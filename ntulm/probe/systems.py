"""What probes are trained on: the systems in a file of vectors of the stage `encode`. Library of the stage `probe`.

N posts, F features.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ntulm.errors import UserError

POST_CONCAT, NTU = "post-concat", "ntu"


class Apart(NamedTuple):
    """What a probe of its own for posts of which nothing is known is trained on (docs/decisions/0050)."""

    hidden: NDArray[np.float32]  # [N, F], the features as if no NTU were known; those of test posts are not looked at
    known: NDArray[np.bool_]  # [N], whether an NTU of the post is known


class System(NamedTuple):
    """What probes are trained on under one name."""

    name: str
    features: NDArray[np.float32]  # [N, F]
    width: int  # of the backbone
    precision: str  # in which the vectors are stored
    apart: Apart | None = None  # None: one probe for all posts


def systems(path: Path, variant: str) -> list[System]:
    """The systems in a file of vectors.

    Raises:
        UserError: there is none, it cannot be read, or a value is not finite.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; run `ntulm encode` first")
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); run `ntulm encode` again") from error
    tensors = {name: tensor.astype(np.float32) for name, tensor in stored.items()}
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise UserError(f"{path}: not every value is finite; use encode.dtype: float32, or look for a diverged model")
    vectors, precision = tensors["vectors"], str(stored["vectors"].dtype)
    known = tensors["known"] > 0 if "known" in tensors else None
    width = vectors.shape[1]
    apart = Apart(tensors["hidden"], known) if known is not None and "hidden" in tensors else None
    found = [System(variant, vectors, width, precision, apart)]
    if "ntu" not in tensors:
        return found
    ntu = tensors["ntu"]
    joined, alone = None, None
    if known is not None:
        nothing = np.repeat(tensors["ntu_hidden"], len(ntu), axis=0)
        joined, alone = Apart(np.hstack([vectors, nothing]), known), Apart(nothing, known)
    found.append(System(POST_CONCAT, np.hstack([vectors, ntu]), width, precision, joined))
    found.append(System(NTU, ntu, width, precision, alone))
    return found
