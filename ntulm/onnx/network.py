"""An ONNX graph of a model in the place of its torch network: `ntulm.load` gives it to the same `Encoder`.

Library of `ntulm.load` for directories that `ntulm export` wrote. Needs onnxruntime (`ntulm[onnx]`). Each run has one
thread, since the encoder runs a batch per core. A graph in int8 is run by OpenVINO where that is installed
(`ntulm[openvino]`) and the processor has units for products of bytes.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ntulm.device import has_int8
from ntulm.errors import UserError
from ntulm.language_model.backbone import LOCAL, TOKENIZER

GRAPH = "model.onnx"  # in a directory that `ntulm export` wrote
INPUTS, OUTPUT = ("input_ids", "attention_mask", "slot", "slot_shares", "slot_mask"), "vectors"
PRECISION = "precision"  # in the graph's metadata, where it is "int8"


class GraphNetwork(ABC):
    """What an `Encoder` asks of a frozen model: `device`, the length of a vector, `leaves_out`, `post_embedding`."""

    device = torch.device("cpu")

    def __init__(self, taken: list[str], width: int) -> None:
        self.taken = taken  # names of the graph's inputs
        self.leaves_out = "slot_mask" in taken  # as `NtulmForMaskedLM` says it
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
        return torch.from_numpy(self.run({name: given[name].numpy() for name in self.taken}))  # type: ignore[union-attr]

    @abstractmethod
    def run(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """The vectors of one batch."""


class OnnxNetwork(GraphNetwork):
    """A graph run by onnxruntime."""

    def __init__(self, file: Path) -> None:
        """Read a graph.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            self.session = start_session(str(file))
        except Exception as error:  # onnxruntime has a class of its own for each kind of damage, without a common one
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{file}: the graph cannot be read ({reason}); export it again") from error
        self.precision = self.session.get_modelmeta().custom_metadata_map.get(PRECISION, "float32")
        super().__init__([one.name for one in self.session.get_inputs()], self.session.get_outputs()[0].shape[-1])

    def run(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """See `GraphNetwork`."""
        (vectors,) = self.session.run([OUTPUT], arrays)
        return np.asarray(vectors)


class OpenVinoNetwork(GraphNetwork):
    """A graph that onnxruntime could read, run by OpenVINO: a stream of its own for each of torch's threads."""

    def __init__(self, file: Path, read: OnnxNetwork) -> None:
        import openvino

        threads = torch.get_num_threads()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",  # with AMX, what is not in bytes would be in bfloat16
        }
        self.compiled = openvino.Core().compile_model(str(file), "CPU", settings)
        self.own = threading.local()  # a request serves one thread at a time
        super().__init__(read.taken, read.encoder.config.hidden_size)

    def run(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """See `GraphNetwork`."""
        if not hasattr(self.own, "request"):
            self.own.request = self.compiled.create_infer_request()
        self.own.request.infer(arrays, share_inputs=True)
        return np.array(self.own.request.get_output_tensor(0).data)  # a copy: the request keeps its own


def start_session(graph: str | bytes) -> Any:
    """The session of a graph, a file or its content, with one thread for each run: onnxruntime's `InferenceSession`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def network_of(file: Path) -> GraphNetwork:
    """The graph of a file in the runtime that suits this machine (docs/decisions/0053-int8.md).

    Raises:
        UserError: the file is missing or damaged.
    """
    read = OnnxNetwork(file)
    if read.precision == "int8" and has_int8() and find_spec("openvino") is not None:
        return OpenVinoNetwork(file, read)
    return read


def load_graph(directory: Path) -> tuple[GraphNetwork, PreTrainedTokenizerBase]:
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
    return network_of(directory / GRAPH), tokenizer
