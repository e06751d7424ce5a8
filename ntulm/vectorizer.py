"""A model directory as a transformer of scikit-learn: `NtulmVectorizer`. Needs scikit-learn beside what a model needs.

It holds the name of a model, never its weights: estimators that are cloned, pickled or sent to other processes share
the models that their process has loaded.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from ntulm.errors import UserError
from ntulm.inference.directory import READING, find
from ntulm.inference.model import Model, load

LOADED_AT_ONCE = 2  # models that a process keeps, e.g. while a grid search compares them


class NtulmVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Posts to post embeddings, in pipelines; nothing is fitted.

    Args:
        model: what `ntulm.load` takes, or a loaded `Model`.
        batch_size: posts encoded at a time; None: the model's own. It changes nothing beyond rounding.
        device: a name that torch knows; None: the GPU if there is one. A loaded model stays on its own.
    """

    def __init__(
        self, model: str | Path | Model = "production", batch_size: int | None = None, device: str | None = None
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> NtulmVectorizer:  # noqa: N803 (scikit-learn's name)
        """Check the settings and the posts; learns nothing.

        Args:
            X: N posts in whatever form `Model.encode` takes.
            y: not looked at.

        Raises:
            UserError: there is no such model, a setting of a wrong type, or a post that cannot be read.
        """
        self._read(X)
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """The post embeddings, float32 [N, H].

        Args:
            X: N posts in whatever form `Model.encode` takes.

        Raises:
            UserError: as `fit`.
        """
        posts = self._read(X)
        encoder = self._loaded().encoder
        return (encoder if self.batch_size is None else replace(encoder, batch_size=self.batch_size)).encode(posts)

    @property
    def _n_features_out(self) -> int:
        return self._loaded().encoder.width

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True  # posts are checked here, not by scikit-learn
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.string = tags.input_tags.dict = True
        tags.transformer_tags.preserves_dtype = []  # text goes in, float32 comes out
        return tags

    def _read(self, posts: Any) -> Any:
        size = self.batch_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1):
            raise UserError(f"batch_size: {size!r}; expected a whole number from 1 on, or None")
        return self._loaded().read(posts)

    def _loaded(self) -> Model:
        if isinstance(self.model, Model):
            return self.model
        directory = find(self.model).resolve()
        return _load(directory, self.device, _stamp(directory))


@lru_cache(LOADED_AT_ONCE)
def _load(directory: Path, device: str | None, stamp: tuple[int, int]) -> Model:
    """`stamp` tells a directory from the one that stood there before."""
    return load(directory, device)


def _stamp(directory: Path) -> tuple[int, int]:
    path = directory / READING
    if not path.is_file():
        return 0, 0  # `load` says what is missing
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
