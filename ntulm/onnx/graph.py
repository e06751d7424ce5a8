"""Encoder and slots as one ONNX graph: exported by torch, compared with what it came from.

Library of `ntulm export`. Needs onnx, onnxscript and onnxruntime (`ntulm[onnx]`).

    input_ids, attention_mask int64 [B, L]
    slot float32 [B, C, D]   slot_shares float32 [B, C]   slot_mask int64 [B, S]
    -> vectors float32 [B, H]

B posts, L tokens, S slots, C channels, D NTU vector, H hidden (`ntulm/language_model/model.py`). A model without slots
has no `slot`; `slot_shares` is there where a slot has a projection per type, `slot_mask` where the model leaves a slot
out of whose NTUs none is known. B and L are free.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx  # noqa: F401 (torch imports both late; missing ones are told before the work)
import onnxscript  # noqa: F401
import torch
from torch import Tensor, nn

from ntulm.language_model.model import NtulmForMaskedLM
from ntulm.onnx.network import INPUTS, OUTPUT, OnnxNetwork

TRIED = ((1, 3), (7, 12), (2, 30))  # posts and tokens of the batches that graph and model are compared on
SHOWN = (3, 8)  # posts and tokens of the batch that the exporter follows: neither is 1, which it would take for fixed
TOLERANCE = 1e-3  # of a vector's values; what rounds otherwise stays far below


class PostEmbedding(nn.Module):
    """The post embedding as the one output of a model."""

    def __init__(self, model: NtulmForMaskedLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        slot: Tensor | None = None,
        slot_shares: Tensor | None = None,
        slot_mask: Tensor | None = None,
    ) -> Tensor:
        """See the head of this file."""
        if slot is None:
            return self.model.post_embedding(input_ids, attention_mask)
        # Else all are shown. The model would say so with `len`, which the exporter takes for a fixed number of posts.
        if slot_mask is None:
            slot_mask = attention_mask.new_ones((attention_mask.shape[0], len(self.model.config.slots)))
        return self.model.post_embedding(input_ids, attention_mask, slot, slot_shares, slot_mask)


def export(model: NtulmForMaskedLM, file: Path) -> None:
    """Write the graph of a float32 model on the CPU; one file, weights included.

    Raises:
        RuntimeError: torch cannot export it, or the graph gives other vectors.
    """
    module = PostEmbedding(model.eval())
    random = np.random.default_rng(0)
    given = inputs(model, *SHOWN, random)
    free = torch.export.Dim.DYNAMIC
    with quiet(), torch.no_grad():
        torch.onnx.export(
            module,
            (),
            file,
            kwargs=given,
            input_names=list(given),
            output_names=[OUTPUT],
            dynamic_shapes={name: {0: free, 1: free} if name in INPUTS[:2] else {0: free} for name in given},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    network = OnnxNetwork(file)
    for size in TRIED:
        made = inputs(model, *size, random)
        with torch.no_grad():
            expected = model.post_embedding(**made)
        difference = float((network.post_embedding(**made) - expected).abs().max())
        if not difference <= TOLERANCE:
            raise RuntimeError(f"{file}: the graph's vectors differ by {difference} from the model's")


def inputs(model: NtulmForMaskedLM, posts: int, tokens: int, random: np.random.Generator) -> dict[str, Tensor]:
    """Made-up inputs of B posts of L tokens at most, the last ones shorter."""
    config = model.config
    vocabulary = int(model.encoder.config.vocab_size)
    lengths = np.linspace(tokens, max(1, tokens // 2), posts).astype(np.int64)
    made = {
        "input_ids": torch.from_numpy(random.integers(0, vocabulary, (posts, tokens))),
        "attention_mask": torch.from_numpy((np.arange(tokens) < lengths[:, None]).astype(np.int64)),
    }
    channels = sum(config.channels)
    if channels:
        vectors = random.standard_normal((posts, channels, config.slot_width)) * np.mean(config.slot_norms)
        made["slot"] = torch.from_numpy(vectors.astype(np.float32))
    if any(slot["per_type"] for slot in config.slots):
        made["slot_shares"] = torch.from_numpy(random.random((posts, channels)).astype(np.float32))
    if config.leaves_out and channels:
        made["slot_mask"] = torch.from_numpy(random.integers(0, 2, (posts, len(config.slots))))
    return made


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what the libraries say of their own versions and of steps that do not concern the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
