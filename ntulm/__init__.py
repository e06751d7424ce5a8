"""NTULM: social post embeddings enriched with non-textual units (Li et al. 2022).

`ntulm.load` reads a model directory; the libraries that it needs are imported when it is called, not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntulm.inference.model import Model, Prediction, load
    from ntulm.vectorizer import NtulmVectorizer

__version__ = "0.1.0"
__all__ = ["Model", "NtulmVectorizer", "Prediction", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """The public names, on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'ntulm' has no attribute {name!r}")
    module = "ntulm.vectorizer" if name == "NtulmVectorizer" else "ntulm.inference.model"
    return getattr(import_module(module), name)
