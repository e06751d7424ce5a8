"""How fresh parts of a language model start: the projections of slots, and an MLM head. Library of `model.py`."""

from typing import Any, cast

import torch
from torch import Tensor, nn


@torch.no_grad()
def start_projections(model: Any, scale: float, seed: int) -> None:
    """Draw the projections of a model's slots, in place.

    The paper does not say how its projection starts. Ours keeps the angles between NTU vectors, and writes them where
    the first layer's keys read least. To last through the layers and to be found in the mean over positions (§3.3), a
    slot has to be larger than a token; written anywhere, such a slot would draw the attention of all tokens to it or
    away from it (docs/decisions/0003-start-of-the-slot.md).

    Several channels share the least read directions out among them, in turns, so that all are as quiet and none writes
    over another: what they say is added up in a slot, in the attention and in the mean over positions, and could not be
    told apart again. Only where there are too few directions do all take the same, the quietest ones.

    Args:
        model: an NtulmForMaskedLM.
        scale: the projected slots start with this many times the typical norm of an embedded token.
        seed: draws the projections.
    """
    generator, norm = torch.Generator().manual_seed(seed), _token_norm(model)
    width = model.config.slot_width
    for projection, directions in zip(model.projections, _directions(model, width), strict=True):
        # The input has a norm near 1 (`NtulmConfig.slot_norms`), and an orthogonal matrix keeps it.
        empty = torch.empty(directions.shape[1], width)
        orthogonal = nn.init.orthogonal_(empty, generator=generator).to(model.device)
        projection.weight.copy_(directions @ orthogonal * scale * norm)
        projection.bias.zero_()


def _directions(model: Any, width: int) -> list[Tensor]:
    """Where each channel writes at the start: orthonormal [E, min(D, E)] per channel."""
    count = len(model.projections)
    if count * width > model.embedded_width:
        return [_quiet_directions(model, width)] * count
    directions = _quiet_directions(model, count * width)
    return [directions[:, channel::count] for channel in range(count)]


def _quiet_directions(model: Any, count: int) -> Tensor:
    """The directions that the first layer's keys read least: orthonormal [E, min(count, E)]."""
    attention = model.layers[0].attention
    keys = attention.k_lin if hasattr(attention, "k_lin") else attention.self.key
    read = keys.weight.double()
    if hasattr(model.encoder, "embeddings_project"):
        read = read @ model.encoder.embeddings_project.weight.double()
    _, directions = torch.linalg.eigh(read.T @ read)  # the least read first
    return directions[:, :count].float()


def _token_norm(model: Any) -> float:
    """The mean norm of an embedded token, over the vocabulary's first 4096 tokens at one position."""
    model.eval()
    count = min(4096, int(model.encoder.embeddings.word_embeddings.num_embeddings))
    tokens = torch.arange(count, device=model.device).unsqueeze(1)
    return float(model.encoder.embeddings(input_ids=tokens).norm(dim=-1).mean())


@torch.no_grad()
def start_head(dense: nn.Module, decoder: nn.Module, counts: Tensor) -> None:
    """Give a fresh MLM head a sensible start: the identity, and the tokens' frequencies as the decoder's bias.

    With the library's random start a small budget goes into learning these (4,000 posts: 9.4 bits instead of 8.3).

    Args:
        dense: the head's dense layer.
        decoder: its output layer.
        counts: [V], how often each token occurs in the posts to come.
    """
    cast(nn.Linear, dense).weight.copy_(torch.eye(*cast(nn.Linear, dense).weight.shape))
    smoothed = counts.double() + 0.1  # a token never seen keeps a chance
    cast(nn.Linear, decoder).bias.copy_((smoothed / smoothed.sum()).log())
