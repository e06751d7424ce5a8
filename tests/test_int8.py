"""ntulm/onnx/int8.py: which products become integer ones, where scales come from, and what rounding leaves alone."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from ntulm.onnx import int8, network  # noqa: E402
from ntulm.onnx.network import OnnxNetwork  # noqa: E402

WIDTH, OUT, ROWS, SLOT = 16, 24, int8.EMBEDDING_ROWS, 6


@pytest.fixture
def constants():
    random = np.random.default_rng(0)
    made = {
        "table": random.standard_normal((ROWS, WIDTH)),
        "gain": np.where(np.arange(WIDTH) == 3, 40.0, 1.0),  # one channel is far larger than the others
        "shift": np.full(WIDTH, 0.5),
        "first": random.standard_normal((WIDTH, OUT)),
        "second": random.standard_normal((WIDTH, OUT)),
        "bias": random.standard_normal(OUT),
        "projection": random.standard_normal((SLOT, OUT)),
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


@pytest.fixture
def file(tmp_path, constants):
    """Two products of one activation and one of a slot; the vector is their sum over the real positions."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("LayerNormalization", ["embedded", "gain", "shift"], ["normal"]),
        helper.make_node("MatMul", ["normal", "first"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["biased"]),
        helper.make_node("MatMul", ["normal", "second"], ["other"]),
        helper.make_node("Add", ["biased", "other"], ["both"]),
        helper.make_node("MatMul", ["slot", "projection"], ["projected"]),
        helper.make_node("Concat", ["both", "projected"], ["all"], axis=1),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["both", "weights"], ["real"]),
        helper.make_node("ReduceMean", ["real", "second_axis"], ["mean"], keepdims=0),
        helper.make_node("ReduceMean", ["all", "second_axis"], ["unused"], keepdims=0),
        helper.make_node("ReduceSum", ["projected", "second_axis"], ["of_slot"], keepdims=0),
        helper.make_node("Add", ["mean", "of_slot"], ["vectors"]),
    ]
    given = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "L"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["B", "L"]),
        helper.make_tensor_value_info("slot", TensorProto.FLOAT, ["B", 1, SLOT]),
    ]
    axes = {"last": np.array([2]), "second_axis": np.array([1])}
    tensors = [numpy_helper.from_array(values, name) for name, values in (constants | axes).items()]
    vectors = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["B", OUT])]
    graph = helper.make_graph(nodes, "tiny", given, vectors, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "float32.onnx")
    return tmp_path / "float32.onnx"


def batches(count=4, posts=5, length=8):
    random = np.random.default_rng(1)
    made = []
    for _ in range(count):
        lengths = random.integers(2, length + 1, posts)
        made.append(
            {
                "input_ids": random.integers(1, ROWS, (posts, length)),
                "attention_mask": (np.arange(length) < lengths[:, None]).astype(np.int64),
                "slot": random.standard_normal((posts, 1, SLOT)).astype(np.float32),
            }
        )
    return made


def test_products_with_weights_behind_the_first_normalisation_become_integer_ones(file, tmp_path, constants):
    int8.to_int8(file, tmp_path / "int8.onnx", batches())
    model = onnx.load(tmp_path / "int8.onnx")
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for weight, product in (("first", "product"), ("second", "other")):
        assert weight not in kept
        assert kept[f"{product}.weight.bytes"].dtype == np.int8
        assert np.abs(kept[f"{product}.weight.bytes"]).max() == 63  # 7 bits
    assert kept["table.bytes"].dtype == np.int8
    assert "table" not in kept
    np.testing.assert_array_equal(kept["projection"], constants["projection"])
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 1  # for both of its readers
    assert OnnxNetwork(tmp_path / "int8.onnx").precision == "int8"
    assert OnnxNetwork(file).precision == "float32"


def test_vectors_stay_near_although_one_channel_is_far_larger(file, tmp_path):
    int8.to_int8(file, tmp_path / "int8.onnx", batches())
    plain, small = OnnxNetwork(file), OnnxNetwork(tmp_path / "int8.onnx")
    for batch in batches(count=6):
        expected, found = plain.run(batch), small.run(batch)
        assert not np.array_equal(expected, found)
        assert np.abs(expected - found).max() < 0.02 * np.abs(expected).max()


def test_a_vector_depends_on_its_post_alone(file, tmp_path):
    int8.to_int8(file, tmp_path / "int8.onnx", batches())
    small = OnnxNetwork(tmp_path / "int8.onnx")
    batch = batches(count=1)[0]
    together = small.run(batch)
    for row in range(5):
        alone = small.run({name: values[row : row + 1] for name, values in batch.items()})
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-5, atol=1e-5)


def test_padding_gives_no_scale_and_the_order_of_batches_no_other_bytes(file, tmp_path):
    posts = batches()
    int8.to_int8(file, tmp_path / "one.onnx", posts)
    int8.to_int8(file, tmp_path / "two.onnx", posts[::-1])
    for batch in posts:
        batch["input_ids"][batch["attention_mask"] == 0] = 0
    int8.to_int8(file, tmp_path / "three.onnx", posts)
    contents = {(tmp_path / f"{name}.onnx").read_bytes() for name in ("one", "two", "three")}
    assert len(contents) == 1


def test_the_bias_takes_back_what_rounding_adds_to_the_mean(file, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "WEIGHT_LEVELS", 3)  # coarse
    posts = batches(count=20)
    errors = []
    for name, shift in (("with", int8._Rewriter._shift_bias), ("without", lambda *_: None)):
        monkeypatch.setattr(int8._Rewriter, "_shift_bias", shift)
        int8.to_int8(file, tmp_path / f"{name}.onnx", posts)
        graphs = [onnx.load(path) for path in (file, tmp_path / f"{name}.onnx")]
        means = [mean_of(graph, "biased", posts) for graph in graphs]
        errors.append(np.abs(means[0] - means[1]).max())
    assert errors[0] < 0.25 * errors[1]


def mean_of(model, name, posts):
    return np.concatenate(int8.watch(model, [name], posts)[name].some).mean(0)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
def test_a_range_holds_zero_exactly(low, high):
    scale, zero = int8.scale_of(np.array([low, low / 2]), np.array([high, high / 2]))
    assert scale > 0
    reached = (np.array([0, int(zero), 255]) - int(zero)) * scale
    assert reached[1] == 0
    assert reached[0] <= low + scale
    assert reached[2] >= high - scale


def test_openvino_runs_int8_where_there_are_units_for_it(file, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    int8.to_int8(file, tmp_path / "int8.onnx", batches())
    for units, path, kind in (
        (True, tmp_path / "int8.onnx", network.OpenVinoNetwork),
        (False, tmp_path / "int8.onnx", network.OnnxNetwork),
        (True, file, network.OnnxNetwork),
    ):
        monkeypatch.setattr(network, "has_int8", lambda units=units: units)
        found = network.network_of(path)
        assert type(found) is kind
        batch = batches(count=1)[0]
        np.testing.assert_allclose(found.run(batch), OnnxNetwork(path).run(batch), atol=0.05)
    monkeypatch.setattr(network, "find_spec", lambda name: None)
    monkeypatch.setattr(network, "has_int8", lambda: True)
    assert type(network.network_of(tmp_path / "int8.onnx")) is OnnxNetwork
