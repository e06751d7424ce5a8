"""Make a frozen model fast on a CPU with bfloat16 products: packed weights, and a softmax that is quick at any length.

What each of the two brings: docs/decisions/0031-speed-of-the-text-loops.md. The packed product is an operator of torch
without a public name: where this torch or this CPU has none that gives the plain one's result, the layers stay plain.
"""

import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

ATTENTION = "ntulm_inference"
ROWS = 2048  # positions of a usual batch, for which the weights are laid out; any other number works too


class PackedLinear(nn.Module):
    """A linear layer for inference alone, its weight in the order that the library's product reads.

    torch's own brings the weight into that order in every call, and copies the bias into the result beforehand. The two
    operators are those that `torch.compile` uses; they have no public name.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # Plain attributes: a packed tensor can be neither converted nor saved.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
        return product


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """The library's plain attention without dropout, with the softmax in float32.

    In bfloat16 torch's softmax goes place by place unless the length is a multiple of 16.

    Args:
        module: not looked at.
        query: [B, A, P, H / A], A heads; so are `key` and `value`.
        key: see `query`.
        value: see `query`.
        attention_mask: [B, 1, P, P], added to the scores; None adds nothing.
        scaling: of the scores; None: one over the root of H / A.

    Returns:
        [B, P, A, H / A], and the weights [B, A, P, P].
    """
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores.add_(attention_mask)
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, eager_mask)


def speed_up(encoder: Any, layers: nn.ModuleList) -> None:
    """Pack the linear layers of a frozen encoder on a CPU, in place; it cannot be trained or saved then."""
    encoder.set_attn_implementation(ATTENTION)
    dtype = next(layers.parameters()).dtype
    if not packs(dtype):
        return
    for parent in list(layers.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))


@cache  # asked, and said, once
def packs(dtype: torch.dtype) -> bool:
    """Whether packed weights of this type work here; says on standard error why they do not."""
    plain = nn.utils.skip_init(nn.Linear, 64, 32, dtype=dtype)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(torch.linspace(-1.0, 1.0, parameter.numel()).view_as(parameter))  # draws no random number
        posts = torch.linspace(-1.0, 1.0, 5 * 64).view(5, 64).to(dtype)
        try:
            torch.testing.assert_close(PackedLinear(plain)(posts), plain(posts), rtol=0.02, atol=0.02)
        except (AttributeError, RuntimeError, TypeError, AssertionError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            print(f"encoding without packed weights, which is slower: {reason}", file=sys.stderr)
            return False
    return True
