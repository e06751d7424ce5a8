"""Dropout with cheap draws: four 16-bit ones from each 64-bit number of the generator.

Library of `training.py` and `ntulm/probe/perceptron.py`. On a CPU torch's own dropout draws place by place on one
thread, an eighth of the time of a training step (docs/decisions/0031-speed-of-the-text-loops.md).
"""

import torch
from torch import Tensor, nn

LEVELS = 2**16  # of a 16-bit draw
LOWEST = -(2**63)  # of a 64-bit draw


def keep_mask(like: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """What to multiply a tensor with: 0 with the probability (exact to 1 / 65536), else what keeps the mean.

    The draws are those of the generator, without one they follow `torch.manual_seed`. Shape, type and device are those
    of `like`.
    """
    draws = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device).random_(
        LOWEST, None, generator=generator
    )
    places = draws.view(torch.int16)[: like.numel()].view(like.shape)
    dropped = round(probability * LEVELS)
    return (places >= dropped - LEVELS // 2).to(like.dtype).mul_(1 / (1 - probability))


class Dropout(nn.Dropout):
    """In place of torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop and rescale; [...] to [...] of the same type."""
        return input * keep_mask(input, self.p) if self.training and self.p > 0 else input


def replace_dropout(model: nn.Module) -> None:
    """Give a model this file's dropout where it has torch's."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
