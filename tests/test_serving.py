"""ntulm/serving/: the same vectors and labels as the loaded model's, and requests that are refused with a reason."""

import base64
import json
import re
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from running_server import WAIT, running

import ntulm
from ntulm.errors import UserError
from ntulm.inference.version import version_of
from ntulm.serving.address import is_loopback, key_for
from ntulm.serving.limits import USUAL
from ntulm.serving.run import name_of

POSTS = ["we like it #so", {"text": "see it again", "author": "@Right0"}, {"text": "today", "hashtags": ["so"]}]
PAGE = Path(__file__).parent.parent / "docs/how-to/serve.md"
KEY = "a key that nobody knows"


@pytest.fixture(scope="module")
def directory(served_directory):
    """A model directory that stays as it is."""
    return served_directory


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


def test_answers_are_json_that_openai_clients_read(server):
    body = json.loads(server.post("/v1/embeddings", {"input": "a"}).body)
    assert body.keys() == {"object", "data", "model", "usage"}
    assert body["data"][0].keys() == {"object", "index", "embedding"}
    error = json.loads(server.post("/v1/embeddings", {"input": []}).body)["error"]
    assert error == {"message": error["message"], "type": "invalid_request_error", "code": "invalid_value"}
