"""The two-layer probe as one flat vector of weights, its gradient written out: a step costs little but its products.

Library of `ntulm/probe/stage.py`. Automatic differentiation of the same flat vector takes 1.12 times the CPU time of a
whole search, and a module with an optimizer and an average that go through weights one by one 1.4 times
(docs/decisions/0031-speed-of-the-text-loops.md).

B posts of a batch, F features, H hidden, C classes:  x [B, F] ─ tanh(W1 x + b1) ─► [B, H] ─ W2 · + b2 ─► [B, C]
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntulm.language_model.dropout import keep_mask


class Perceptron:
    """Weights, their gradient and their running average, each one vector, and the optimizer's state."""

    def __init__(
        self, start: nn.Sequential, learning_rate: float, weight_decay: float, generator: torch.Generator
    ) -> None:
        """Take over the weights of a linear layer, tanh, dropout and a linear layer; `generator` draws the dropout."""
        weights = start.state_dict()
        self.dropout, self.generator = float(cast(nn.Dropout, start[2]).p), generator
        self.names, self.shapes = list(weights), [weight.shape for weight in weights.values()]
        self.flat = torch.cat([weight.flatten() for weight in weights.values()])
        self.flat.grad = torch.zeros_like(self.flat)
        self.averaged, self.started = self.flat.clone(), False
        self.parts, self.gradients = self._split(self.flat), self._split(self.flat.grad)
        self.optimizer = torch.optim.AdamW([self.flat], lr=learning_rate, weight_decay=weight_decay, fused=True)

    def step(self, features: Tensor, targets: Tensor, kind: str, kept: float) -> None:
        """One update on a batch.

        Args:
            features: float32 [B, F].
            targets: int64 [B] for the kind `single`, float32 [B, C] for `multi`.
            kind: the loss: softmax cross-entropy, or sigmoid cross-entropy for several labels per post (§4.3).
            kept: share of the running average that stays.
        """
        first, first_bias, second, second_bias = self.parts
        hidden = torch.addmm(first_bias, features, first.t()).tanh_()
        mask = keep_mask(hidden, self.dropout, self.generator) if self.dropout else None
        shown = hidden if mask is None else hidden * mask
        slope = loss_slope(torch.addmm(second_bias, shown, second.t()), targets, kind)
        behind = slope @ second
        if mask is not None:
            behind *= mask
        behind *= 1 - hidden.square()
        for layer, (inner, outer) in enumerate([(features, behind), (shown, slope)]):
            torch.mm(outer.t(), inner, out=self.gradients[2 * layer])
            torch.sum(outer, 0, out=self.gradients[2 * layer + 1])
        self.optimizer.step()
        self.averaged.lerp_(self.flat, 1 - kept if self.started else 1.0)  # the random start does not count
        self.started = True

    def average(self) -> dict[str, Tensor]:
        """The running average of the weights by name, a copy."""
        return dict(zip(self.names, self._split(self.averaged.clone()), strict=True))

    def _split(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([shape.numel() for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def loss_slope(logits: Tensor, targets: Tensor, kind: str) -> Tensor:
    """The gradient of the mean loss by the logits: float32 [B, C]."""
    if kind == "multi":
        return (logits.sigmoid() - targets) / logits.numel()
    return (logits.softmax(1) - F.one_hot(targets, logits.shape[1])) / len(logits)
