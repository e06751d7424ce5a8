"""An ONNX graph of a model in the place of its torch network: `ntulm.load` gives it to the same `Encoder`.

Library of `ntulm.load` for directories that `ntulm export` wrote. Needs onnxruntime (`ntulm[onnx]`). The graph is run
with one thread per batch, since the encoder runs a batch per core.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ntulm.errors import UserError
from ntulm.language_model.backbone import LOCAL, TOKENIZER

GRAPH = "model.onnx"  # in a directory that `ntulm export` wrote
INPUTS, OUTPUT = ("input_ids", "attention_mask", "slot", "slot_shares", "slot_mask"), "vectors"


class OnnxNetwork:
    """What an `Encoder` asks of a frozen model: `device`, the length of a vector, `leaves_out`, `post_embedding`."""

    device = torch.device("cpu")

    def __init__(self, file: Path) -> None:
        """Read a graph.

        Raises:
            UserError: the file is missing or damaged.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each kind of damage, without a common one
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{file}: the graph cannot be read ({reason}); export it again") from error
        self.taken = [one.name for one in self.session.get_inputs()]
        self.leaves_out = "slot_mask" in self.taken  # as `NtulmForMaskedLM` says it
        width = self.session.get_outputs()[0].shape[-1]
        self.encoder = SimpleNamespace(config=SimpleNamespace(hidden_size=width))  # as a torch network says it

    def post_embedding(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        slot: Tensor | None = None,
        slot_shares: Tensor | None = None,
        slot_mask: Tensor | None = None,
    ) -> Tensor:
        """As `NtulmForMaskedLM.post_embedding`: float32 [B, H]."""
        given = dict(zip(INPUTS, (input_ids, attention_mask, slot, slot_shares, slot_mask), strict=True))
        arrays = {name: given[name].numpy() for name in self.taken}  # type: ignore[union-attr]
        (vectors,) = self.session.run([OUTPUT], arrays)
        return torch.from_numpy(vectors)


def load_graph(directory: Path) -> tuple[OnnxNetwork, PreTrainedTokenizerBase]:
    """The graph and the tokenizer of an exported directory.

    Raises:
        UserError: one of them is missing or damaged.
    """
    for name in TOKENIZER:
        if not (directory / name).is_file():
            raise UserError(f"{directory}: no {name}; export the model again")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, **LOCAL)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{directory}: the tokenizer cannot be read; export the model again") from error
    return OnnxNetwork(directory / GRAPH), tokenizer
