"""A float32 graph of `ntulm export` to int8: what is rounded, where the scales come from, and what is put right after.

Library of `ntulm export --int8`. Reads an ONNX graph and the inputs of some posts; writes another graph, in the
standard operators QuantizeLinear and DequantizeLinear, which onnxruntime and OpenVINO make integer products of.

- Scales are fixed, from those posts: a vector depends on its post alone. Scales that come with each batch would make it
  depend on the posts beside it.
- Channels of an activation differ in size by far more than a byte can show. So each is divided by a factor of its own,
  which its row of the weights takes over (SmoothQuant, arXiv 2211.10438). How much of the differences the weights
  take over, and how much of the largest values is cut off, is what gives the products of some positions best.
- Weights have 7 bits per output channel: two products of 8 bits overflow a sum of 16 where the processor has no VNNI.
- Rounding moves the mean of a product; the bias after it takes that back.
- Products without weights (attention) and those of the slots, a few per cent of the work, stay in float32.

K inputs and N outputs of a product, B posts, P positions (L tokens, then the slots).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ntulm.onnx.network import INPUTS, PRECISION, GraphNetwork, start_session

Array = NDArray[np.float32]
WEIGHT_LEVELS = 63  # on either side of zero: 7 bits
ACTIVATION_LEVELS = 255  # from the least value to the largest
SMOOTHINGS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # tried: the share of the channels' differences that weights take over
RANGES = (1.0, 0.9, 0.8, 0.65, 0.5)  # tried: the share of an activation's range that its bytes stand for
POSITIONS = 256  # on which they are tried
EMBEDDING_LEVELS = 127
EMBEDDING_ROWS = 4096  # tables of as many rows or more are kept in bytes; those of positions and types are small
LEAST = 1e-8  # stands for a channel that is always 0


@dataclass
class Seen:
    """The values of an activation at the positions that count."""

    low: Array  # [K], the least of each channel
    high: Array  # [K]
    some: list[Array]  # [n, K] each: some of them as they are, evenly spread

    @classmethod
    def nothing(cls, width: int) -> Seen:
        """Before the first batch."""
        return cls(np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32), [])

    def add(self, rows: Array, kept: int) -> None:
        """Positions [n, K], of which so many are kept."""
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))
        self.some.append(rows[:: max(1, len(rows) // kept)][:kept])


class Scaling(NamedTuple):
    """How an activation becomes bytes."""

    factors: Array  # [K], which its channels are divided by beforehand
    scale: np.float32
    zero: np.uint8

    def rounded(self, rows: Array) -> Array:
        """What the bytes of [n, K] stand for, divided by the factors."""
        levels = np.rint(rows / self.factors / self.scale) + self.zero
        return (np.clip(levels, 0, ACTIVATION_LEVELS) - self.zero).astype(np.float32) * self.scale


class Recorder(GraphNetwork):
    """Keeps the batches that an encoder makes of posts, and gives zeros."""

    def __init__(self, like: GraphNetwork) -> None:
        super().__init__(like.taken, like.encoder.config.hidden_size)
        self.batches: list[dict[str, np.ndarray]] = []

    def run(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """See `GraphNetwork`."""
        self.batches.append(arrays)
        return np.zeros((len(arrays["input_ids"]), self.encoder.config.hidden_size), np.float32)


def to_int8(source: Path, target: Path, batches: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write the graph of `source` in int8.

    Args:
        source: a graph that `ntulm/onnx/graph.py` exported.
        target: the new file.
        batches: inputs of posts like those to come; the scales are theirs, whatever their order.
    """
    model = onnx.load(source)
    batches = sorted(batches, key=lambda arrays: arrays[INPUTS[0]].tobytes())  # means are rounded in their order
    products = weighted_products(model)
    seen = watch(model, sorted({node.input[0] for node in products}), batches)
    _Rewriter(model).rewrite(products, seen)
    helper.set_model_props(model, {PRECISION: "int8"})
    onnx.checker.check_model(model)
    onnx.save(model, target)


def weighted_products(model: ModelProto) -> list[NodeProto]:
    """The products of an encoder's activations with constant weights: those behind its first normalisation."""
    constants = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    behind: set[str] = set()
    found = []
    for node in model.graph.node:  # in the order of the computation
        if node.op_type == "LayerNormalization" or behind.intersection(node.input):
            behind.update(node.output)
        if node.op_type == "MatMul" and node.input[0] in behind and node.input[1] in constants:
            found.append(node)
    return found


def watch(model: ModelProto, names: Sequence[str], batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Seen]:
    """Run the graph on posts and look at its activations, padding left out."""
    shown = ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = start_session(shown.SerializeToString())
    kept = -(-POSITIONS // max(len(batches), 1))
    seen: dict[str, Seen] = {}
    for batch in batches:
        for name, values in zip(names, session.run(list(names), dict(batch)), strict=True):
            rows = values[positions(batch, values.shape[1])]
            seen.setdefault(name, Seen.nothing(values.shape[-1])).add(rows, kept)
    return seen


def positions(batch: Mapping[str, np.ndarray], count: int) -> NDArray[np.bool_]:
    """Which positions are no padding: bool [B, P]; the slots stand last."""
    tokens = batch[INPUTS[1]].astype(bool)
    slots = batch.get(INPUTS[4], np.ones((len(tokens), count - tokens.shape[1])))
    return np.concatenate([tokens, slots.astype(bool)], axis=1)


def best_scaling(seen: Seen, weights: Sequence[Array]) -> Scaling:
    """The scaling of an activation whose products with `weights` [K, N] are nearest to the exact ones.

    What rounding adds to their mean does not count: biases take it back.
    """
    rows = np.concatenate(seen.some)
    exact = [rows @ weight for weight in weights]
    best, least = None, np.inf
    for share in SMOOTHINGS:
        factors = smoothing(seen, weights, share)
        whole = [rounded(weight * factors[:, None], WEIGHT_LEVELS, 0) for weight in weights]
        for part in RANGES:
            scaling = Scaling(factors, *scale_of(seen.low / factors * part, seen.high / factors * part))
            given = scaling.rounded(rows)
            errors = [given @ (value * scales) - one for (value, scales), one in zip(whole, exact, strict=True)]
            error = sum(float(np.square(one - one.mean(0)).sum()) for one in errors)
            if best is None or error < least:
                best, least = scaling, error
    assert best is not None
    return best


def smoothing(seen: Seen, weights: Sequence[Array], share: float) -> Array:
    """The factors [K] that the channels of an activation are divided by; `weights` [K, N] are all that read it."""
    largest = np.maximum(np.maximum(np.abs(seen.low), np.abs(seen.high)), LEAST)
    read = np.maximum(np.max([np.abs(weight).max(1) for weight in weights], axis=0), LEAST)
    factors: Array = (largest**share / read ** (1 - share)).astype(np.float32)
    return factors


def scale_of(lows: Array, highs: Array) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of the range of all channels [K], which is made to hold 0."""
    low, high = min(float(lows.min()), 0.0), max(float(highs.max()), 0.0)
    scale = max((high - low) / ACTIVATION_LEVELS, LEAST)
    return np.float32(scale), np.uint8(np.clip(round(-low / scale), 0, ACTIVATION_LEVELS))


def rounded(weight: Array, levels: int, axis: int) -> tuple[NDArray[np.int8], Array]:
    """Whole numbers within `levels` of zero and their scales, one for each place along the other axis of [K, N]."""
    scales = np.maximum(np.abs(weight).max(axis, keepdims=True) / levels, LEAST).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales


class _Rewriter:
    """Puts the integer products into a graph."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.around: dict[str, tuple[list[NodeProto], list[NodeProto]]] = {}  # what comes before and after an output

    def rewrite(self, products: Sequence[NodeProto], seen: Mapping[str, Seen]) -> None:
        """Replace products and large embeddings, and drop the constants that nobody reads any more."""
        for name in dict.fromkeys(node.input[0] for node in products):
            self._activation(name, [node for node in products if node.input[0] == name], seen[name])
        for node in self.nodes:
            table = self.constants.get(node.input[0]) if node.op_type == "Gather" else None
            if table is not None and len(table.dims) == 2 and table.dims[0] >= EMBEDDING_ROWS:
                self._embedding(node)
        nodes = []
        for node in self.nodes:
            before, after = self.around.get(node.output[0], ([], []))
            nodes += [*before, node, *after]
        read = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self.constants.values() if tensor.name in read]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _activation(self, name: str, products: Sequence[NodeProto], seen: Seen) -> None:
        """One activation in bytes, for all products that read it."""
        weights = [numpy_helper.to_array(self.constants[node.input[1]]) for node in products]
        scaling = best_scaling(seen, weights)
        inverse = self._constant(f"{name}.factors", 1 / scaling.factors)
        given = [self._constant(f"{name}.scale", np.asarray(scaling.scale))]
        given.append(self._constant(f"{name}.zero", np.asarray(scaling.zero)))
        before, _ = self.around.setdefault(products[0].output[0], ([], []))
        before += [
            helper.make_node("Mul", [name, inverse], [f"{name}.smooth"]),
            helper.make_node("QuantizeLinear", [f"{name}.smooth", *given], [f"{name}.bytes"]),
            helper.make_node("DequantizeLinear", [f"{name}.bytes", *given], [f"{name}.rounded"]),
        ]
        rows = np.concatenate(seen.some)
        means = rows.mean(0) / scaling.factors, scaling.rounded(rows).mean(0)
        for node, weight in zip(products, weights, strict=True):
            self._product(node, f"{name}.rounded", weight * scaling.factors[:, None], *means)

    def _product(self, node: NodeProto, activation: str, weight: Array, exact: Array, given: Array) -> None:
        """The product with rounded weights [K, N], and the bias after it.

        Args:
            node: the product.
            activation: what it is to read.
            weight: the exact one.
            exact: the mean of the activation [K].
            given: the same as the bytes say it.
        """
        name = node.output[0]  # the weight may be that of several products
        whole, scales = rounded(weight, WEIGHT_LEVELS, 0)
        stored = [
            self._constant(f"{name}.weight.bytes", whole),
            self._constant(f"{name}.weight.scales", scales[0]),
            self._constant(f"{name}.weight.zeros", np.zeros(len(scales[0]), np.int8)),
        ]
        before, _ = self.around.setdefault(name, ([], []))
        before.append(helper.make_node("DequantizeLinear", stored, [f"{name}.weight"], axis=1))
        node.input[0], node.input[1] = activation, f"{name}.weight"
        readers = [one for one in self.nodes if name in one.input]
        if len(readers) == 1 and readers[0].op_type == "Add":
            self._shift_bias(readers[0], f"{name}.bias", given @ (whole * scales) - exact @ weight)

    def _shift_bias(self, addition: NodeProto, name: str, moved: Array) -> None:
        """Take what rounding adds to the mean [N] off the bias, where there is one."""
        for place, other in enumerate(addition.input):
            if other in self.constants and len(self.constants[other].dims) == 1:
                bias = numpy_helper.to_array(self.constants[other]) - moved
                addition.input[place] = self._constant(name, bias.astype(np.float32))

    def _embedding(self, node: NodeProto) -> None:
        """Rows of bytes, each with a scale of its own."""
        name, rows, result = node.input[0], node.input[1], node.output[0]
        whole, scales = rounded(numpy_helper.to_array(self.constants[name]), EMBEDDING_LEVELS, 1)
        node.input[0] = self._constant(f"{name}.bytes", whole)
        node.output[0] = f"{result}.bytes"
        of_rows = self._constant(f"{name}.scales", scales)
        _, after = self.around.setdefault(node.output[0], ([], []))
        after += [
            helper.make_node("Gather", [of_rows, rows], [f"{result}.scales"]),
            helper.make_node("Cast", [f"{result}.bytes"], [f"{result}.whole"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{result}.whole", f"{result}.scales"], [result]),
        ]

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name
