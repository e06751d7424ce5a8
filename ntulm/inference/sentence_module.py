"""The model directory as the one module of a `SentenceTransformer`; `modules.json` names it.

`SentenceTransformer(directory, trust_remote_code=True)` imports this module and calls `NtulmPosts.load`. Nothing of
sentence-transformers is imported here: it asks its modules for what they have, and where its own base classes stand
differs from version to version. Shapes: B posts, L tokens, C channels, D NTU vector, H hidden.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntulm.device import choose_device, has_bf16
from ntulm.embeddings.table import EmbeddingTable
from ntulm.inference.directory import SENTENCE_MODULES, Settings
from ntulm.inference.reading import read_posts
from ntulm.language_model.backbone import load_model
from ntulm.language_model.batches import pad
from ntulm.language_model.slots import Slots
from ntulm.language_model.tokens import tokenise
from ntulm.variants import parse_variant


class NtulmPosts(nn.Module):
    """Texts, and dicts with author and hashtags, to post embeddings. The weights are frozen."""

    save_in_root = True
    modalities = ("text",)

    def __init__(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """Load a model directory.

        Args:
            directory: the model directory.
            dtype: of the weights; None: that of `ntulm.load`, bfloat16 where the hardware has it.

        Raises:
            UserError: something of the directory is missing or damaged.
        """
        super().__init__()
        device = choose_device()
        self.directory = directory
        self.settings = Settings.read(directory)
        self.table = EmbeddingTable.load(directory)
        self.variant = parse_variant(self.settings.variant, self.settings.scheme.of_posts)
        self.batches = self.settings.batches
        network, self.tokenizer = load_model(directory, "model", device)
        if dtype is None:
            dtype = torch.bfloat16 if has_bf16(device) else torch.float32
        self.network = network.eval().requires_grad_(False).to(dtype)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> NtulmPosts:
        """As sentence-transformers calls it: a directory or a name of the hub; of `model_kwargs`, `dtype` counts."""
        directory = Path(model_name_or_path, subfolder)
        if not directory.is_dir():
            from huggingface_hub import snapshot_download

            directory = Path(
                snapshot_download(
                    model_name_or_path,
                    revision=revision,
                    cache_dir=cache_folder,
                    token=token,
                    local_files_only=local_files_only,
                ),
                subfolder,
            )
        return cls(directory, _dtype(model_kwargs or {}))

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """B posts as tensors: int64 `input_ids` and `attention_mask` [B, L]; float32 `slot` [B, C, D] and its company.

        Args:
            inputs: texts and dicts, as `Model.encode` takes them.
            prompt: put before each text.

        Raises:
            UserError: an input is no post; names it.
        """
        given = [_with_prompt(post, prompt) for post in inputs] if prompt else inputs
        posts = read_posts(given, self.settings.scheme, self.settings.source).seen_by(self.variant)
        tokens = tokenise(posts.texts, self.tokenizer, self.batches)
        rows = np.arange(len(posts))
        ids, real, _positions = pad(tokens, rows, int(self.tokenizer.pad_token_id or 0), self.batches.max_length)
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(real.astype(np.int64))}
        if self.variant.slots:
            leave_out = self.network.leaves_out
            slots = Slots.of(self.table, self.settings.scheme, self.variant, posts.ntus, leave_out)
            features |= slots.tensors(rows, torch.device("cpu"))
        return features

    def tokenize(self, texts: Sequence[Any], **more: Any) -> dict[str, Tensor]:
        """`preprocess` by its earlier name."""
        return self.preprocess(texts, **more)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds `sentence_embedding` float32 [B, H] to what `preprocess` gave."""
        names = ("input_ids", "attention_mask", "slot", "slot_shares", "slot_mask")
        given = {name: features[name] for name in names if features.get(name) is not None}
        features["sentence_embedding"] = self.network.post_embedding(**given)
        return features

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text; what is longer is cut."""
        return self.batches.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.batches = replace(self.batches, max_length=value)

    def get_embedding_dimension(self) -> int:
        """H."""
        return int(self.network.encoder.config.hidden_size)

    get_sentence_embedding_dimension = get_embedding_dimension  # its earlier name

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Copy the model directory, which nothing changes, but for what sentence-transformers writes itself."""
        kept = shutil.ignore_patterns(*SENTENCE_MODULES)
        shutil.copytree(self.directory, output_path, dirs_exist_ok=True, ignore=kept)


def _dtype(settings: Mapping[str, Any]) -> torch.dtype | None:
    found = settings.get("dtype", settings.get("torch_dtype"))
    if isinstance(found, str):
        found = getattr(torch, found, None)
    return found if isinstance(found, torch.dtype) else None


def _with_prompt(post: Any, prompt: str) -> Any:
    if isinstance(post, str):
        return prompt + post
    if isinstance(post, Mapping) and isinstance(post.get("text"), str):
        return {**post, "text": prompt + post["text"]}
    return post  # an error that names it comes from the reading
