"""Use a model directory on new posts: `load`; importing it tells transformers' Auto classes of NTULM's."""

from ntulm.inference.auto import NtulmModel
from ntulm.inference.model import Model, Prediction, load

__all__ = ["Model", "NtulmModel", "Prediction", "load"]
