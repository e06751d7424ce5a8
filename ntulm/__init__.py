"""NTULM: social post embeddings enriched with non-textual units (Li et al. 2022).

`ntulm.load` reads a model directory; the libraries that it needs are imported when it is called, not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntulm.inference.model import Model, Prediction, load
    from ntulm.inference.vectorizer import NtulmVectorizer

__version__ = "0.1.0"
__all__ = ["Model", "NtulmVectorizer", "Prediction", "__version__", "load"]

PLACES = {"NtulmVectorizer": "vectorizer"}  # the module of `ntulm/inference/` that has a name, if not `model`


def __getattr__(name: str) -> Any:
    """The public names of `ntulm/inference/`, on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'ntulm' has no attribute {name!r}")
    return getattr(import_module(f"ntulm.inference.{PLACES.get(name, 'model')}"), name)
