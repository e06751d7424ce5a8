"""The engine against autograd and against PyTorch-BigGraph's own loss, and what it learns of planted communities."""

import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ntulm.embeddings import torch_engine, torch_training
from ntulm.embeddings.config import Embeddings
from ntulm.embeddings.link_prediction import Edges, Model, Relation, link_prediction
from ntulm.embeddings.partitions import nodes_of
from ntulm.embeddings.torch_training import Part
from ntulm.files import write_json

USERS, HASHTAGS, COMMUNITIES = 60, 40, 4
RELATIONS = [Relation("authored", "user", "hashtag"), Relation("reposted", "user", "hashtag")]
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def config(**changes: Any) -> Embeddings:
    values: dict[str, Any] = {
        "engine": "torch",
        "dimension": 16,
        "epochs": 12,
        "learning_rate": 0.2,
        "batch_size": 200,
        "batch_negatives": 20,
        "uniform_negatives": 20,
        "partitions": 1,
        "workers": 1,
        "ranked_edges": 1000,
        "seed": 0,
    }
    return Embeddings(**values | changes)


def planted() -> tuple[Edges, np.ndarray]:
    """Users use the hashtags of their community, now and then another; a tenth of the pairs is held out."""
    random = np.random.default_rng(0)
    users = random.integers(USERS, size=2500)
    hashtags = random.integers(HASHTAGS // COMMUNITIES, size=2500) * COMMUNITIES + users % COMMUNITIES
    stray = random.random(2500) < 0.05
    hashtags[stray] = random.integers(HASHTAGS, size=stray.sum())
    lhs, rel, rhs = np.unique(np.stack([users, random.integers(2, size=2500), hashtags]), axis=1)
    held_out = random.random((USERS, HASHTAGS))[lhs, rhs] < 0.1
    return Edges(lhs, rel, rhs), held_out


@pytest.fixture(scope="module")
def pbg_input(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pbg")
    edges, held_out = planted()
    write_pbg_input(folder, edges.take(~held_out))
    return folder


def write_pbg_input(folder: Path, edges: Edges) -> None:
    (folder / "train").mkdir()
    with h5py.File(folder / "train" / "edges_0_0.h5", "w") as file:
        file.attrs["format_version"] = 1
        for name, column in (("lhs", edges.given), ("rel", edges.rel), ("rhs", edges.answer)):
            file[name] = column
    (folder / "entity_count_user_0.txt").write_text(f"{USERS}\n")
    (folder / "entity_count_hashtag_0.txt").write_text(f"{HASHTAGS}\n")
    write_json(folder / "relations.json", [relation._asdict() for relation in RELATIONS])


def engine(dtype: torch.dtype, **changes: Any) -> torch_engine.Engine:
    """A small engine with vectors far from zero, its tables in the given precision."""
    random = torch.Generator().manual_seed(3)

    def table(rows: int) -> torch_engine.Table:
        vectors = torch.randn(rows, 8, generator=random, dtype=torch.float64)
        squares = torch.rand(rows, generator=random, dtype=torch.float64)
        return torch_engine.Table(vectors.to(dtype), squares.to(dtype))

    relations = torch.randn(3, 8, generator=random, dtype=torch.float64).to(dtype)
    squares = torch.rand(3, 8, generator=random, dtype=torch.float64).to(dtype)
    settings, negatives = config(dimension=8, **changes), torch.Generator().manual_seed(1)
    users, hashtags = table(30), table(20)
    sides = {0: (users, hashtags), 1: (users, hashtags), 2: (users, users)}
    return torch_engine.Engine(sides, relations, squares, settings, dtype, negatives)


def plain_loss(users: Tensor, hashtags: Tensor, relation: Tensor, batch: Any, drawn: tuple[Tensor, Tensor]) -> Tensor:
    """The loss of the module's docstring, edge by edge; chunks of 4 edges, 3 uniform negatives each."""
    total = torch.zeros((), dtype=users.dtype)
    for edge in range(len(batch.lhs)):
        chunk = edge // 4
        u, v = users[batch.lhs[edge]], hashtags[batch.rhs[edge]] + relation
        total = total + 2 * F.softplus(-(u @ v))
        others = [place for place in range(4 * chunk, min(4 * chunk + 4, len(batch.lhs))) if place != edge]
        uniform = range(3 * chunk, 3 * chunk + 3)
        wrong_users = [*(users[batch.lhs[place]] for place in others), *(users[drawn[0][place]] for place in uniform)]
        wrong_tags = [*(batch.rhs[place] for place in others), *(drawn[1][place] for place in uniform)]
        negatives = [wrong @ v for wrong in wrong_users] + [u @ (hashtags[wrong] + relation) for wrong in wrong_tags]
        total = total + F.softplus(torch.stack(negatives)).sum() / 7
    return total


def draws(made: torch_engine.Engine, chunks: int, relation: int = 0) -> tuple[Tensor, Tensor]:
    """The uniform negatives that the next step will draw."""
    random = torch.Generator()
    random.set_state(made.random.get_state())
    sizes = [len(table.vectors) for table in made.sides[relation]]
    left, right = (torch.randint(rows, (3 * chunks,), generator=random) for rows in sizes)
    return left, right


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("size", [3, 8, 10])
def test_a_step_equals_autograd_and_plain_row_wise_adagrad(dtype, tolerance, size):
    made = engine(dtype, batch_size=12, batch_negatives=4, uniform_negatives=3)
    random = torch.Generator().manual_seed(size)
    batch = torch_engine.Batch(1, *(torch.randint(rows, (size,), generator=random) for rows in (6, 5)))
    users, hashtags = (table.vectors.clone().requires_grad_() for table in made.sides[1])
    relation = made.relations[1].clone().requires_grad_()
    expected = plain_loss(users, hashtags, relation, batch, draws(made, -(-size // 4)))
    expected.backward()
    tables = tuple(zip(made.sides[1], (users, hashtags), strict=True))
    sums = [table.squares + tensor.grad.square().mean(1) for table, tensor in tables]  # type: ignore[union-attr]
    relation_sums = made.relation_squares[1] + relation.grad.square()  # type: ignore[union-attr]
    loss = made.step(batch, with_loss=True)
    assert loss == pytest.approx(float(expected), rel=max(tolerance, 1e-6))  # the loss is summed in float32
    for (table, tensor), total in zip(tables, sums, strict=True):
        assert tensor.grad is not None
        moved = tensor.detach() - 0.2 * tensor.grad / (total.sqrt() + 1e-10)[:, None]
        torch.testing.assert_close(table.vectors, moved, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(table.squares, total, rtol=tolerance, atol=tolerance)
    assert relation.grad is not None
    moved = relation.detach() - 0.2 * relation.grad / (relation_sums.sqrt() + 1e-10)
    torch.testing.assert_close(made.relations[1], moved, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(made.relations[0], engine(dtype).relations[0])


def unpack_optional(annotation):
    if type(None) not in typing.get_args(annotation):
        raise TypeError
    return typing.get_args(annotation)[0]


def test_the_loss_is_that_of_biggraph(monkeypatch):
    from torchbiggraph.config import parse_config
    from torchbiggraph.edgelist import EdgeList
    from torchbiggraph.entitylist import EntityList
    from torchbiggraph.losses import LogisticLossFunction
    from torchbiggraph.model import make_model
    from torchbiggraph.types import Side

    from ntulm.embeddings import pbg

    made = engine(torch.float32, batch_size=12, batch_negatives=4, uniform_negatives=3)
    batch = torch_engine.Batch(0, torch.arange(10) % 6, torch.arange(10) % 7)
    # BigGraph finds an Optional by identity, which lasts as long as `typing` remembers the type: long in the young
    # process that ntulm/embeddings/pbg.py gives it, not always in this one.
    monkeypatch.setattr("torchbiggraph.schema.unpack_optional", unpack_optional)
    schema = parse_config(pbg._config(made.config, Path(), Path(), [RELATIONS[0]]))
    model = make_model(schema)
    model.set_embeddings("user", torch.nn.Parameter(made.sides[0][0].vectors), Side.LHS)
    model.set_embeddings("hashtag", torch.nn.Parameter(made.sides[0][1].vectors), Side.RHS)
    model.rhs_operators[0].translation.data = made.relations[0].clone()
    drawn = iter(draws(made, 3))
    monkeypatch.setattr(torch, "randint", lambda low, high, size: next(drawn).view(size))
    edges = EdgeList(EntityList.from_tensor(batch.lhs), EntityList.from_tensor(batch.rhs), torch.tensor(0))
    scores = model(edges)
    monkeypatch.undo()
    logistic = LogisticLossFunction()
    expected = logistic(scores.lhs_pos, scores.lhs_neg) + logistic(scores.rhs_pos, scores.rhs_neg)
    assert made.step(batch, with_loss=True) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("size", [3, 10])
def test_a_row_on_both_sides_is_updated_once_as_by_biggraph(monkeypatch, size):
    """One table on both sides: the step equals that of BigGraph's own model, loss and optimizer."""
    from torchbiggraph.config import parse_config
    from torchbiggraph.edgelist import EdgeList
    from torchbiggraph.entitylist import EntityList
    from torchbiggraph.losses import LogisticLossFunction
    from torchbiggraph.model import make_model
    from torchbiggraph.row_adagrad import RowAdagrad
    from torchbiggraph.types import Side

    from ntulm.embeddings import pbg

    made = engine(torch.float32, batch_size=12, batch_negatives=4, uniform_negatives=3)
    table = made.sides[2][0]
    batch = torch_engine.Batch(2, torch.arange(size) % 6, (torch.arange(size) + 3) % 7)
    monkeypatch.setattr("torchbiggraph.schema.unpack_optional", unpack_optional)
    model = make_model(parse_config(pbg._config(made.config, Path(), Path(), [Relation("knows", "user", "user")])))
    vectors = torch.nn.Parameter(table.vectors.clone())
    model.set_embeddings("user", vectors, Side.LHS)
    model.set_embeddings("user", vectors, Side.RHS)
    model.rhs_operators[0].translation.data = made.relations[2].clone()
    optimizer = RowAdagrad([vectors], lr=made.config.learning_rate)
    optimizer.state[vectors]["sum"].copy_(table.squares)
    drawn = iter(draws(made, -(-size // 4), 2))
    monkeypatch.setattr(torch, "randint", lambda low, high, size: next(drawn).view(size))
    edges = EdgeList(EntityList.from_tensor(batch.lhs), EntityList.from_tensor(batch.rhs), torch.tensor(0))
    scores = model(edges)
    monkeypatch.undo()
    logistic = LogisticLossFunction()
    loss = logistic(scores.lhs_pos, scores.lhs_neg) + logistic(scores.rhs_pos, scores.rhs_neg)
    loss.backward()
    optimizer.step()
    assert made.step(batch, with_loss=True) == pytest.approx(float(loss), rel=1e-5)
    torch.testing.assert_close(table.vectors, vectors.data, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(table.squares, optimizer.state[vectors]["sum"], rtol=1e-4, atol=1e-5)


def test_every_edge_comes_once_an_epoch_in_batches_of_one_relation(pbg_input):
    edges = torch_training.read_edges(pbg_input / "train" / "edges_0_0.h5")
    order = torch.Generator().manual_seed(0)
    epochs = [list(torch_training.batches(edges, 150, order)) for _ in range(2)]
    known, held_out = planted()
    trained = known.take(~held_out)
    expected = sorted(zip(trained.given.tolist(), trained.rel.tolist(), trained.answer.tolist(), strict=True))
    for epoch in epochs:
        found = [
            (u, batch.relation, v)
            for batch in epoch
            for u, v in zip(batch.lhs.tolist(), batch.rhs.tolist(), strict=True)
        ]
        assert sorted(found) == expected
        assert max(len(batch.lhs) for batch in epoch) == 150
    assert epochs[0][0].lhs.tolist() != epochs[1][0].lhs.tolist()


def mrr(model: Model) -> dict[str, Any]:
    edges, held_out = planted()
    return link_prediction(model, edges, held_out, np.flatnonzero(held_out), RELATIONS)


@pytest.mark.parametrize("bf16", [False, True])
def test_communities_are_learned(pbg_input, monkeypatch, bf16):
    monkeypatch.setattr(torch_training, "has_bf16", lambda device: bf16)
    model, losses = torch_training.train(config(), pbg_input, lambda *_: None)
    assert losses[-1] < 0.8 * losses[0]
    figures = mrr(model)
    assert figures["mrr"] > 1.5 * figures["popularity"]["mrr"]
    found = (model.nodes["user"], model.nodes["hashtag"], model.relations)
    assert [vectors.dtype for vectors in found] == [np.float32] * 3
    assert [vectors.shape for vectors in found] == [(60, 16), (40, 16), (2, 16)]


@pytest.mark.slow
def test_links_are_predicted_as_well_as_by_biggraph(pbg_input, tmp_path):
    from ntulm.embeddings import pbg

    reference, _ = pbg.train(config(engine="pbg"), pbg_input, tmp_path, lambda *_: None)
    ours = [mrr(torch_training.train(config(seed=seed), pbg_input, lambda *_: None)[0])["mrr"] for seed in range(3)]
    assert np.mean(ours) > 0.93 * mrr(reference)["mrr"]


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(pbg_input):
    reports: list[tuple[int, float]] = []
    first, losses = torch_training.train(config(epochs=2), pbg_input, lambda *report: reports.append(report))
    again, _ = torch_training.train(config(epochs=2), pbg_input, lambda *_: None)
    other, _ = torch_training.train(config(epochs=2, seed=1), pbg_input, lambda *_: None)
    for name in ("user", "hashtag"):
        assert first.nodes[name].tobytes() == again.nodes[name].tobytes() != other.nodes[name].tobytes()
    assert first.relations.tobytes() == again.relations.tobytes() != other.relations.tobytes()
    assert reports == [(1, losses[0]), (2, losses[1])]


def test_a_relation_without_edges_stays_at_zero(tmp_path):
    edges, _ = planted()
    write_pbg_input(tmp_path, edges.take(edges.rel == 0))
    model, losses = torch_training.train(config(epochs=1), tmp_path, lambda *_: None)
    assert np.abs(model.relations[0]).sum() > 0
    assert not model.relations[1].any()
    assert np.isfinite(losses).all()


def test_denormals_count_as_zero_only_inside():
    tiny = torch.tensor([1e-39])
    with torch_engine.no_denormals():
        assert float(tiny * 1.0) == 0
    assert float(tiny * 1.0) > 0


@pytest.mark.parametrize("partitions", [2, 7, 100])
def test_every_edge_is_in_one_bucket_of_one_pass(pbg_input, partitions):
    edges = torch_training.read_edges(pbg_input / "train" / "edges_0_0.h5")
    found = []
    passes = torch_training.split(edges, RELATIONS, partitions)
    for bucket in (bucket for one in passes for bucket in one):
        for rel, (lhs, rhs) in enumerate(bucket.edges):
            left, right = nodes_of(USERS, bucket.lhs, partitions), nodes_of(HASHTAGS, bucket.rhs, partitions)
            found += [(rel, left[u], right[v]) for u, v in zip(lhs.tolist(), rhs.tolist(), strict=True)]
    sizes = [sum(len(lhs) for bucket in one for lhs, _ in bucket.edges) for one in passes]
    assert len(sizes) == 4
    assert min(sizes) > 0
    expected = [
        (rel, u, v) for rel, (lhs, rhs) in enumerate(edges) for u, v in zip(lhs.tolist(), rhs.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("devices", [1, 2])
def test_partitions_learn_as_well_as_a_whole_table(pbg_input, devices):
    whole = mrr(torch_training.train(config(), pbg_input, lambda *_: None)[0])
    model, losses = torch_training.train(config(partitions=4), pbg_input, lambda *_: None, [CPU] * devices)
    assert losses[-1] < 0.8 * losses[0]
    assert mrr(model)["mrr"] > 0.9 * whole["mrr"]
    assert np.abs(model.relations).sum(1).all()


def test_partitions_on_one_device_give_the_same_bytes(pbg_input):
    first, _ = torch_training.train(config(epochs=2, partitions=3), pbg_input, lambda *_: None, [CPU])
    again, _ = torch_training.train(config(epochs=2, partitions=3), pbg_input, lambda *_: None, [CPU])
    for name in ("user", "hashtag"):
        assert first.nodes[name].tobytes() == again.nodes[name].tobytes()


def test_no_two_devices_have_the_same_partition():
    buckets = [
        torch_training.Bucket(lhs, rhs, [], {0: (Part("user", lhs), Part("hashtag", rhs))})
        for lhs in range(3)
        for rhs in range(3)
    ]
    schedule = torch_training.Schedule([(bucket, 0) for bucket in buckets])
    taken = [schedule.take() for _ in range(3)]
    held = [bucket for bucket, _ in filter(None, taken)]
    assert len({bucket.lhs for bucket in held}) == len({bucket.rhs for bucket in held}) == 3
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(schedule.take)
        schedule.release(held[1])  # what is left of users and hashtags needs one of the others as well
        with pytest.raises(TimeoutError):
            waiting.result(0.1)
        schedule.release(held[2])
        found = waiting.result(10)
    assert found is not None
    assert (found[0].lhs, found[0].rhs) in {(1, 2), (2, 1)}


def test_a_device_that_fails_ends_the_training(pbg_input, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch_training, "train_bucket", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        torch_training.train(config(partitions=4), pbg_input, lambda *_: None, [CPU, CPU])


@pytest.fixture(scope="module")
def one_type(tmp_path_factory) -> Path:
    """Users who know those of their community: edges within a type."""
    folder = tmp_path_factory.mktemp("one_type")
    random = np.random.default_rng(0)
    left = random.integers(USERS, size=2000)
    right = random.integers(USERS // COMMUNITIES, size=2000) * COMMUNITIES + left % COMMUNITIES
    write_pbg_input(folder, Edges(left, np.zeros(2000, np.int64), right).take(left != right))
    write_json(folder / "relations.json", [Relation("knows", "user", "user")._asdict()])
    return folder


@pytest.mark.parametrize(("partitions", "devices"), [(1, 1), (4, 1), (4, 2)])
def test_edges_within_a_type_are_learned(one_type, partitions, devices):
    settings = config(partitions=partitions)
    model, losses = torch_training.train(settings, one_type, lambda *_: None, [CPU] * devices)
    assert losses[-1] < 0.8 * losses[0]
    assert list(model.nodes) == ["user"]
    vectors = model.nodes["user"] / np.linalg.norm(model.nodes["user"], axis=1, keepdims=True)
    nearest = np.argsort(-(vectors @ vectors.T - 2 * np.eye(USERS)), axis=1)[:, :5]
    assert (nearest % COMMUNITIES == np.arange(USERS)[:, None] % COMMUNITIES).mean() > 0.9


def test_a_bucket_holds_a_partition_once_whatever_its_sides(one_type):
    edges = torch_training.read_edges(one_type / "train" / "edges_0_0.h5")
    buckets = torch_training.split(edges, [Relation("knows", "user", "user")], 3)[0]
    assert {(bucket.lhs, bucket.rhs): len(bucket.parts) for bucket in buckets} == {
        (lhs, rhs): 1 if lhs == rhs else 2 for lhs in range(3) for rhs in range(3)
    }
    tables = torch_training.new_tables(
        config(partitions=3), {"user": USERS}, 1, torch_training.new_workers(config(), [CPU])
    )
    with torch_training._parts(tables, buckets[0], 3, CPU) as sides:
        assert sides[0][0] is sides[0][1]
