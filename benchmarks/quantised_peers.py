"""The int8 backends of sentence-transformers, `onnx-qint8` and `openvino-qint8`, for `benchmarks/encode.py`.

sentence-transformers runs both through optimum, which refuses the transformers that ntulm needs (optimum-onnx 0.1:
below 4.58; optimum-intel 2.2: below 5.6). So what optimum does is done here: the same calls of onnxruntime, openvino
and nncf with optimum's settings, under the unchanged `encode` of sentence-transformers: its batches and pooling.

- `onnx-qint8`: `export_dynamic_quantized_onnx_model` with the settings `avx512_vnni`, or `avx2` on a processor without
  VNNI (then weights are unsigned).
- `openvino-qint8`: `export_static_quantized_openvino_model` with its own defaults, calibrated on posts.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ntulm.device import has_int8
from ntulm.language_model.backbone import packaged_directory
from ntulm.onnx.graph import quiet

CALIBRATION = 300  # posts; `export_static_quantized_openvino_model` takes as many
PLAIN, ONNX, OPENVINO = "peer.onnx", "peer-qint8.onnx", "peer-qint8.xml"
Run = Callable[[dict[str, np.ndarray]], np.ndarray]  # input_ids and attention_mask to hidden states


def prepare(folder: Path, exported: Path, texts: Sequence[str], max_length: int) -> None:
    """Write both quantised models.

    Args:
        folder: where they are put.
        exported: the graph of the packaged MiniLM in float32; its hidden states are what a backend gives.
        texts: posts to calibrate on.
        max_length: of a post, in tokens.
    """
    import onnx.utils

    nodes = onnx.load(exported).graph.node
    hidden = [node.output[0] for node in nodes if node.op_type == "LayerNormalization"][-1]
    onnx.utils.extract_model(exported, folder / PLAIN, ["input_ids", "attention_mask"], [hidden])
    with quiet():
        _quantise_onnx(folder)
    _quantise_openvino(folder, texts, max_length)


def _quantise_onnx(folder: Path) -> None:
    """As optimum's `AutoQuantizationConfig.avx512_vnni(is_static=False)`, or `avx2`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kind = QuantType.QInt8 if has_int8() else QuantType.QUInt8
    options = {"WeightSymmetric": True, "ActivationSymmetric": False, "MatMulConstBOnly": False}
    quantize_dynamic(folder / PLAIN, folder / ONNX, weight_type=kind, per_channel=True, extra_options=options)


def _quantise_openvino(folder: Path, texts: Sequence[str], max_length: int) -> None:
    """As optimum's `OVQuantizationConfig()`; posts are not padded, which is kinder to the model."""
    os.environ["NNCF_CI"] = "1"  # sends nothing
    import nncf
    import openvino
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(packaged_directory())
    posts = [
        {name: np.array([tokens[name]]) for name in ("input_ids", "attention_mask")}
        for tokens in (tokenizer(text, truncation=True, max_length=max_length) for text in texts[:CALIBRATION])
    ]
    more = nncf.AdvancedQuantizationParameters()
    more.overflow_fix = nncf.OverflowFix.DISABLE
    quantised = nncf.quantize(
        openvino.Core().read_model(folder / PLAIN),
        nncf.Dataset(posts),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(posts),
        fast_bias_correction=True,
        model_type=nncf.ModelType.TRANSFORMER,
        advanced_parameters=more,
    )
    openvino.save_model(quantised, folder / OPENVINO, compress_to_fp16=False)


class Backend(nn.Module):
    """A quantised model in the place of the one that sentence-transformers' `Transformer` has loaded."""

    device = torch.device("cpu")

    def __init__(self, config: Any, run: Run) -> None:
        super().__init__()
        self.config, self.run = config, run

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> dict[str, Tensor]:
        """As a model of transformers."""
        states = self.run({"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()})
        return {"last_hidden_state": torch.from_numpy(states)}


def onnx_qint8(folder: Path) -> Run:
    """A session with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(None, arrays)[0]


def openvino_qint8(folder: Path) -> Run:
    """Compiled with optimum's hint, for as many threads as torch has."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = openvino.Core().compile_model(folder / OPENVINO, "CPU", settings).create_infer_request()
    return lambda arrays: np.array(request.infer(arrays, share_inputs=True)[0])
