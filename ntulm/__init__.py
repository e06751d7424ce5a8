"""NTULM: social post embeddings enriched with non-textual units (Li et al. 2022).

`ntulm.load` reads a model directory; the libraries that it needs are imported when it is called, not before.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntulm.inference.model import Model, Prediction, load

__version__ = "0.1.0"
__all__ = ["Model", "Prediction", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """The public names of `ntulm/inference/`, on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'ntulm' has no attribute {name!r}")
    from ntulm.inference import model

    return getattr(model, name)
