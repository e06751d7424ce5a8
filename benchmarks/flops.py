"""How many floating-point operations the loops of the language model need. Library of benchmarks."""

from typing import Any

from ntulm.language_model.model import NtulmForMaskedLM
from ntulm.language_model.tokens import Tokens


def needed_flops(model: NtulmForMaskedLM, tokens: Tokens, mask_share: float) -> float:
    """Products of one pass forward and backward over the real tokens, and of the head over the masked ones."""
    width, vocabulary = model.encoder.config.hidden_size, model.encoder.config.vocab_size
    head = 2 * float(tokens.lengths.sum()) * mask_share * (width**2 + width * vocabulary)
    return 3 * (layer_flops(model, tokens) + head)


def layer_flops(model: NtulmForMaskedLM, tokens: Tokens) -> float:
    """Products of one pass forward of the layers over the real tokens."""
    config: Any = model.encoder.config
    width, lengths = config.hidden_size, tokens.lengths.astype(float)
    layer = 2 * lengths * (4 * width**2 + 2 * width * config.intermediate_size) + 4 * lengths**2 * width
    return config.num_hidden_layers * float(layer.sum())
