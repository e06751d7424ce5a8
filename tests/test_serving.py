"""ntulm/serving/: the same vectors and labels as the loaded model's, and requests that are refused with a reason."""

import base64
import json
import logging
import re
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from conftest import write_lm_project
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from running_server import WAIT, running, until

import ntulm
from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.errors import UserError
from ntulm.inference.version import version_of
from ntulm.layout import Layout
from ntulm.serving.address import is_loopback, key_for
from ntulm.serving.batcher import spread
from ntulm.serving.limits import USUAL
from ntulm.serving.run import name_of

POSTS = ["we like it #so", {"text": "see it again", "author": "@Right0"}, {"text": "today", "hashtags": ["so"]}]
PAGE = Path(__file__).parent.parent / "docs/how-to/serve.md"
KEY = "a key that nobody knows"


@pytest.fixture(scope="module")
def directory(tmp_path_factory, tiny_backbone):
    """A model directory that stays as it is."""
    layout = Layout(tmp_path_factory.mktemp("served"))
    write_lm_project(layout.root)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    return layout.model


@pytest.fixture(scope="module")
def server(directory):
    """A server with the usual limits."""
    with running(directory) as server:
        yield server


@pytest.fixture(scope="module")
def model(directory):
    return ntulm.load(directory, "cpu")


def test_embeddings_are_those_of_encode(server, model, directory):
    answer = server.post("/v1/embeddings", {"input": POSTS, "model": "posts"})
    assert answer.status == 200, answer.body
    assert [one["index"] for one in answer.json["data"]] == [0, 1, 2]
    vectors = np.array([one["embedding"] for one in answer.json["data"]], np.float32)
    np.testing.assert_allclose(vectors, model.encode(POSTS), atol=1e-5)
    assert (answer.json["object"], answer.json["model"]) == ("list", "posts")
    assert answer.json["usage"]["total_tokens"] == answer.json["usage"]["prompt_tokens"] > 10
    assert answer.headers["x-model-version"] == version_of(directory)
    one = server.post("/v1/embeddings", {"input": POSTS[1], "model": version_of(directory)})
    np.testing.assert_allclose(one.json["data"][0]["embedding"], vectors[1], atol=1e-5)


def test_embeddings_in_base64_as_clients_of_openai_ask_for_them(server, model):
    asked = {"input": POSTS[:1], "model": "posts", "encoding_format": "base64", "user": "me", "dimensions": 32}
    (one,) = server.post("/v1/embeddings", asked).json["data"]
    found = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
    np.testing.assert_allclose(found, model.encode(POSTS[:1])[0], atol=1e-5)


def test_labels_are_those_of_predict(server, model):
    answer = server.post("/v1/classify", {"input": POSTS, "task": "topic"})
    for found, expected in zip(answer.json["data"], model.predict(POSTS, "topic"), strict=True):
        assert (found["labels"], found["known"]) == (expected.labels, expected.known)
        assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    answer = server.post("/v1/classify", {"input": POSTS[1], "top": 1})  # it has one task
    (found,) = answer.json["data"]
    assert list(found["probabilities"]) == found["labels"] == ["right"]
    assert answer.json["task"] == "topic"


def test_the_nearest_users_are_those_of_the_same_side(server):
    answer = server.post("/v1/similar", {"type": "user", "key": "@Right0", "top": 3})
    assert {one["key"] for one in answer.json["data"]} == {"right1", "right2", "right3"}
    cosines = [one["cosine"] for one in answer.json["data"]]
    assert cosines == sorted(cosines, reverse=True)
    assert len(server.post("/v1/similar", {"type": "user", "key": "left0", "top": 100}).json["data"]) == 7
    assert server.post("/v1/similar", {"type": "user", "key": "left0", "types": ["hashtag"]}).json["data"] == []
    unknown = server.post("/v1/similar", {"type": "hashtag", "key": "#so"})
    assert (unknown.status, unknown.error) == (404, "key: not in the embedding table of this model")


def test_it_says_what_it_is_and_counts(server, directory):
    (about,) = server.get("/v1/models").json["data"]
    assert (about["id"], about["version"], about["tasks"]) == ("posts", version_of(directory), ["topic"])
    assert server.get("/health").json == {"status": "alive"}
    assert server.get("/ready").json["status"] == "ready"
    before = server.counted("ntulm_posts_total")
    server.post("/v1/embeddings", {"input": POSTS})
    families = {one.name: one for one in text_string_to_metric_families(server.get("/metrics").body.decode())}
    assert families["ntulm_posts"].samples[0].value == before + 3
    assert families["ntulm_model_info"].samples[0].labels["version"] == version_of(directory)
    statuses = {(one.labels["path"], one.labels["status"]) for one in families["ntulm_requests"].samples}
    assert ("/v1/embeddings", "200") in statuses


def test_the_page_of_the_interface_needs_no_network(server):
    page = server.get("/docs").body.decode()
    for script in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"/static-offline-docs/{script}" in page
        assert server.get(f"/static-offline-docs/{script}").status == 200
    assert "https://" not in page
    schema = server.get("/openapi.json").json
    assert {"/v1/embeddings", "/v1/classify", "/v1/similar", "/ready"} <= schema["paths"].keys()
    assert "author" in schema["components"]["schemas"]["Post"]["properties"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"input": []}, 422, "input: 0 posts; expected 1 to 256"),
        ({"input": ["a"] * 257}, 422, "input: 257 posts; expected 1 to 256"),
        ({"input": ["a", "b" * 10_001]}, 422, "input[1]: 10,001 characters; expected 10,000 at most"),
        ({"input": [{"text": "b" * 10_001}]}, 422, "input[0]: 10,001 characters; expected 10,000 at most"),
        ({"input": [1, 2]}, 422, "input[0]: tokens; expected a text"),
        ({"input": [[1, 2]]}, 422, "input[0]: tokens; expected a text"),
        ({"input": ["a", None]}, 422, "input[1]: NoneType; expected a text, or a dict with at least `text`"),
        ({"input": " "}, 422, "input[0].text: ' '; expected a text that is not empty"),
        ({"input": "a\ud800"}, 422, "input[0].text: half a character"),
        ({"input": [{"author": "a"}]}, 422, "input[0].text: None; expected a text"),
        ({"input": [{"text": "a", "user": "b"}]}, 422, "input[0]: unknown field 'user'; a post has"),
        ({"input": [{"text": "a", "hashtags": "b"}]}, 422, "input[0].hashtags: 'b'; expected a list of strings"),
        ({}, 422, "input: Field required"),
        ({"input": "a", "inputs": "b"}, 422, "inputs: Extra inputs are not permitted"),
        ({"input": "a", "model": "other"}, 404, "model: another one than 'posts', which is in use"),
        ({"input": "a", "dimensions": 8}, 422, "dimensions: 8; the model's vectors have 32"),
        ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format: Input should be 'float' or 'base64'"),
        ([], 422, "body: Input should be"),
        (b"{", 400, "body: no JSON"),
        (b"", 422, "body: Field required"),
        (b"\xff\xfe", 400, ""),
        (b"[" * 100_000, 400, ""),
        (b'{"input": ' + b"1" * 5000 + b"}", 400, ""),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(server, body, status, message):
    answer = server.post("/v1/embeddings", body)
    assert (answer.status, answer.error[: len(message)]) == (status, message)
    assert server.get("/ready").status == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/classify", {"input": "a", "task": "hashtag"}, 422, "task: none of this model's; it has topic"),
        ("/v1/classify", {"input": "a", "top": 0}, 422, "top: Input should be greater than or equal to 1"),
        ("/v1/similar", {"type": "place", "key": "a"}, 422, "type 'place': not in this model; it has"),
        ("/v1/similar", {"type": "user", "key": "left0", "types": ["x"]}, 422, "type 'x': not in this model"),
        ("/v1/similar", {"type": "user", "key": "left0", "top": 1001}, 422, "top: Input should be less than"),
        ("/v1/similar", {"type": "user", "key": "\ud800"}, 422, ""),
        ("/v1/nothing", {}, 404, "Not Found"),
        ("/admin/reload", {}, 403, "this server has no key"),
    ],
)
def test_so_is_one_to_another_route(server, path, body, status, message):
    answer = server.post(path, body)
    assert (answer.status, answer.error[: len(message)]) == (status, message)


def test_another_method_or_form_is_refused(server):
    assert server.get("/v1/embeddings").status == 405
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = server.ask("POST", "/v1/embeddings", {"input": "a"}, Content_Type=kind)
        assert (answer.status, answer.error) == (415, "Content-Type: expected application/json")


def test_the_requests_of_the_how_to_are_answered(server):
    asked = re.findall(r"(/v1/\w+) -H.*?-d '\s*(\{.*?\})'", PAGE.read_text(encoding="utf-8"), re.S)
    assert [path for path, _ in asked] == ["/v1/embeddings", "/v1/classify", "/v1/similar"]
    answers = [server.post(path, body.encode()) for path, body in asked]
    assert [answer.status for answer in answers] == [200, 200, 404]  # the table here has no hashtags
    assert len(answers[0].json["data"]) == 2


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
                        st.sampled_from(["text", "author", "hashtags", "urls", "x"]), inner, max_size=4)))  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_input_is_a_mistake_of_the_servers_own(server, value):
    assert server.post("/v1/embeddings", {"input": value}).status in (200, 422, 400)


def test_a_body_that_is_too_long_is_refused_before_it_is_read(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n{")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
        try:
            for _ in range(40):
                connection.sendall(chunk)
        except OSError:  # it hung up: also right
            pass
        else:
            assert connection.recv(1000).startswith(b"HTTP/1.1 413")
    assert server.get("/ready").status == 200


def test_a_body_that_does_not_come_is_not_waited_for(directory):
    with running(directory, replace(USUAL, upload_seconds=0.2)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        assert server.post("/v1/embeddings", {"input": "a"}).status == 200


def test_a_page_of_another_site_cannot_ask_a_server_without_a_key(server):
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]:80", "10.0.0.1"):
        assert server.get("/v1/models", Host=host).status == 421, host
    for host in ("localhost", "localhost:8000", "127.0.0.1", "[::1]:80", "[::1]"):
        assert server.get("/v1/models", Host=host).status == 200, host


def test_with_a_key_nothing_but_probes_and_the_page_is_open(directory):
    with running(directory, key=KEY) as server:
        for path in ("/v1/models", "/metrics", "/nowhere"):
            assert server.get(path).status == 401
        for wrong in ("", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer \xff", f"Bearer {KEY[:-1]}"):
            answer = server.post("/v1/embeddings", {"input": "a"}, Authorization=wrong)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert server.post("/v1/embeddings", {"input": "a"}, Authorization=f"Bearer {KEY}").status == 200
        assert server.get("/v1/models", Authorization=f"bearer {KEY}", Host="posts.example").status == 200
        for path in ("/health", "/ready", "/docs", "/openapi.json"):
            assert server.get(path, Host="10.0.0.7:8000").status == 200
        assert server.get("/openapi.json").json["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
        answer = server.post("/admin/reload", b"", Authorization=f"Bearer {KEY}")
        assert (answer.status, answer.json["model"]) == (200, "posts")


def test_beyond_loopback_there_has_to_be_a_key():
    for host in ("0.0.0.0", "::", "10.1.2.3", "posts.example", ""):
        with pytest.raises(UserError, match=r"others can reach it; set NTULM_API_KEY"):
            key_for(host, None)
        assert key_for(host, KEY) == KEY
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert is_loopback(host)
        assert key_for(host, "") is None
    with pytest.raises(UserError, match="NTULM_API_KEY: 5 characters; expected 16 at least"):
        key_for("127.0.0.1", "short")
    assert [name_of(name) for name in ("data/model", "hf://owner/posts", "production")] == [
        "model",
        "posts",
        "production",
    ]


def test_limits_are_numbers_above_0_and_a_whole_request_can_wait():
    with pytest.raises(UserError, match=r"--batch 0: expected a number above 0"):
        replace(USUAL, batch=0)
    with pytest.raises(UserError, match=r"--waiting 10: expected 256 at least"):
        replace(USUAL, waiting=10)


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
    assert sizes == [1, 1, 3, 16, model.encoder.batch_size]


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


def test_answers_are_json_that_openai_clients_read(server):
    body = json.loads(server.post("/v1/embeddings", {"input": "a"}).body)
    assert body.keys() == {"object", "data", "model", "usage"}
    assert body["data"][0].keys() == {"object", "index", "embedding"}
    error = json.loads(server.post("/v1/embeddings", {"input": []}).body)["error"]
    assert error == {"message": error["message"], "type": "invalid_request_error", "code": "invalid_value"}
