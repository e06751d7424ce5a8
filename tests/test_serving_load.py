"""ntulm/serving/ under load: requests that are encoded together, overload, mistakes, a new model, a stop."""

import logging
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from running_server import WAIT, running, until

import ntulm
from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.inference.version import version_of
from ntulm.serving.batcher import CPU_BATCH, spread
from ntulm.serving.limits import USUAL

KEY = "a key that nobody knows"


@pytest.fixture(scope="module")
def directory(served_directory):
    """A model directory that stays as it is."""
    return served_directory


@pytest.fixture(scope="module")
def model(directory):
    return ntulm.load(directory, "cpu")


class Slow:
    """An encoder that takes its time, and notes how many posts it is given at a time."""

    def __init__(self, encoder, seconds):
        self.encoder, self.seconds, self.sizes = encoder, seconds, []
        self.started = threading.Event()

    def __getattr__(self, name):
        return getattr(self.encoder, name)

    def encode(self, posts):
        self.sizes.append(len(posts))
        self.started.set()
        time.sleep(self.seconds)
        if any("poison" in text for text in posts.texts):
            raise RuntimeError(f"cannot read {posts.texts}")
        return self.encoder.encode(posts)


def slowed(server, seconds=0.3):
    """Let the model in use take its time."""
    served = server.service.keeper.served
    encoder = Slow(served.model.encoder, seconds)
    server.service.keeper.served = replace(served, model=replace(served.model, encoder=encoder))
    return encoder


def test_requests_that_wait_are_encoded_together(directory, model):
    with running(directory, replace(USUAL, batch=8)) as server, ThreadPoolExecutor(12) as pool:
        encoder = slowed(server)
        texts = [f"we like {letter} #so" for letter in "abcdefghijkl"]
        first = pool.submit(server.post, "/v1/embeddings", {"input": texts[0]})
        assert encoder.started.wait(WAIT)
        rest = list(pool.map(lambda text: server.post("/v1/embeddings", {"input": text}), texts[1:]))
        answers = [first.result(), *rest]
        vectors = [answer.json["data"][0]["embedding"] for answer in answers]
        np.testing.assert_allclose(vectors, model.encode(texts), atol=1e-5)  # each its own
        assert (encoder.sizes[0], sum(encoder.sizes), max(encoder.sizes)) == (1, 12, 8)
        assert server.counted("ntulm_batch_posts_count") == len(encoder.sizes)


def test_a_batch_is_spread_over_the_cores(model, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    sizes = [spread(model.encoder, posts).batch_size for posts in (1, 4, 9, 64, 1000)]
    assert sizes == [1, 1, 3, CPU_BATCH, CPU_BATCH]


def test_overload_is_503_with_a_time_and_the_server_lives_on(directory):
    limits = replace(USUAL, posts=4, waiting=4, batch=4)
    with running(directory, limits) as server, ThreadPoolExecutor(20) as pool:
        slowed(server)
        answers = list(pool.map(lambda _: server.post("/v1/embeddings", {"input": ["a", "b"]}), range(20)))
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 503}
        refused = answers[statuses.index(503)]
        assert int(refused.headers["retry-after"]) >= 1
        assert "posts wait already; try again later" in refused.error
        assert server.post("/v1/embeddings", {"input": "a"}).status == 200
        assert server.service.batcher.waiting == 0
        assert server.counted("ntulm_requests_total", path="/v1/embeddings", status="503") == statuses.count(503)


def test_too_many_requests_at_once_are_503_while_probes_are_answered(directory):
    with running(directory, replace(USUAL, requests=2)) as server, ThreadPoolExecutor(8) as pool:
        encoder = slowed(server, 0.5)
        futures = [pool.submit(server.post, "/v1/embeddings", {"input": "a"}) for _ in range(8)]
        assert encoder.started.wait(WAIT)
        assert (server.get("/health").status, server.get("/metrics").status) == (200, 200)
        statuses = [future.result().status for future in futures]
        assert (statuses.count(200), statuses.count(503)) == (2, 6)


def test_searches_have_a_line_of_their_own(directory):
    with running(directory, replace(USUAL, searches=1)) as server:
        server.service.searching = 1
        assert server.post("/v1/similar", {"type": "user", "key": "left0"}).status == 503
        assert server.post("/v1/embeddings", {"input": "a"}).status == 200


def test_a_request_that_cannot_be_encoded_fails_alone_and_no_text_is_logged(directory, caplog):
    caplog.set_level(logging.DEBUG)
    with running(directory) as server, ThreadPoolExecutor(4) as pool:
        encoder = slowed(server)
        first = pool.submit(server.post, "/v1/embeddings", {"input": "secretword one"})
        assert encoder.started.wait(WAIT)
        inputs = ["secretword two", "secretword poison", {"text": "secretword", "author": "secretname"}]
        answers = list(pool.map(lambda post: server.post("/v1/embeddings?a=secretquery", {"input": post}), inputs))
        assert [first.result().status, *(answer.status for answer in answers)] == [200, 200, 500, 200]
        assert answers[1].error == "a mistake of the server's own"
        server.post("/v1/embeddings", {"input": [{"text": "secretword", "secretfield": 1}]})
        server.post("/v1/secretpath", {"input": "secretword"})
        server.post("/v1/embeddings", b'{"input": "secretword')
    assert "RuntimeError at " in caplog.text
    assert "POST /v1/embeddings 200" in caplog.text
    assert "secret" not in caplog.text


def changed_copy(directory, target, scale):
    """A copy of a model whose vectors are others: its table is."""
    shutil.copytree(directory, target)
    table = EmbeddingTable.load(directory)
    names = [name.decode().split("\0") for name in table.base.names.to_pylist()]
    write_table(target, [kind for kind, _ in names], [key for _, key in names], np.array(table.vectors) * scale)
    return target


@pytest.fixture
def production(directory, tmp_path):
    """A path that stands for a model, two models, and a way to promote one of them."""
    place = tmp_path / "production"
    models = {"old": directory, "new": changed_copy(directory, tmp_path / "new", -3.0)}

    def promote(name):
        fresh = tmp_path / "fresh"
        fresh.symlink_to(models[name])
        fresh.replace(place)

    promote("old")
    return place, models, promote


def more_than(answers, count):
    """Wait for so many more."""
    wanted = len(answers) + count
    until(lambda: len(answers) > wanted)


def test_a_reload_loses_no_request(production):
    place, models, promote = production
    post = {"text": "we like it", "author": "left0"}
    expected = {version_of(path): ntulm.load(path, "cpu").encode([post])[0] for path in models.values()}
    old, new = expected
    assert not np.allclose(expected[old], expected[new], atol=1e-3)
    with running(place, key=KEY) as server, ThreadPoolExecutor(8) as pool:
        stop, answers = threading.Event(), []

        def hammer(_):
            while not stop.is_set():
                answers.append(server.post("/v1/embeddings", {"input": post}, Authorization=f"Bearer {KEY}"))

        clients = [pool.submit(hammer, number) for number in range(6)]
        for name in ("new", "old", "new"):
            more_than(answers, 30)
            promote(name)
            assert server.post("/admin/reload", b"", Authorization=f"Bearer {KEY}").status == 200
        more_than(answers, 30)
        stop.set()
        for client in clients:
            client.result()
        assert server.counted("ntulm_reloads_total", outcome="loaded") == 3
    assert {answer.status for answer in answers} == {200}
    seen = {answer.headers["x-model-version"] for answer in answers}
    assert seen == {old, new}
    assert answers[-1].headers["x-model-version"] == new
    for answer in answers:  # each of the model that it names
        vector = answer.json["data"][0]["embedding"]
        np.testing.assert_allclose(vector, expected[answer.headers["x-model-version"]], atol=1e-5)


def test_a_model_that_cannot_be_loaded_does_not_take_over(production, tmp_path):
    place, models, promote = production
    models["broken"] = tmp_path / "broken"
    models["broken"].mkdir()
    (models["broken"] / "reading.json").write_text("{}")
    with running(place, key=KEY) as server:
        promote("broken")
        answer = server.post("/admin/reload", b"", Authorization=f"Bearer {KEY}")
        assert answer.status == 500
        assert answer.error.startswith("the model in use stays: ")
        place.unlink()
        assert server.post("/admin/reload", b"", Authorization=f"Bearer {KEY}").status == 500
        found = server.post("/v1/embeddings", {"input": "a"}, Authorization=f"Bearer {KEY}")
        assert found.headers["x-model-version"] == version_of(models["old"])
        assert server.counted("ntulm_reloads_total", outcome="failed") == 2


def test_one_reload_at_a_time(production):
    place, _, _ = production
    with running(place, key=KEY) as server, ThreadPoolExecutor(2) as pool:
        encoder = slowed(server, 1.0)
        headers = {"Authorization": f"Bearer {KEY}"}
        waits = pool.submit(server.post, "/v1/embeddings", {"input": "a"}, **headers)
        assert encoder.started.wait(WAIT)
        first = pool.submit(server.post, "/admin/reload", b"", **headers)
        until(lambda: server.service.keeper.busy.locked())
        assert server.post("/admin/reload", b"", **headers).status == 409
        assert (waits.result().status, first.result().status) == (200, 200)


def test_a_stop_finishes_what_was_asked(directory):
    with running(directory) as server, ThreadPoolExecutor(3) as pool:
        encoder = slowed(server, 0.5)
        futures = [pool.submit(server.post, "/v1/embeddings", {"input": "a"}) for _ in range(3)]
        assert encoder.started.wait(WAIT)
        until(lambda: server.service.batcher.waiting + sum(encoder.sizes) == 3)
        server.server.should_exit = True
        assert [future.result().status for future in futures] == [200] * 3
        until(lambda: not server.service.batcher.thread._threads or server.service.batcher.stopping)
