"""The routes of the server. `ntulm/serving/guard.py` stands before them, `ntulm/serving/run.py` runs them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

import ntulm
from ntulm.errors import UserError
from ntulm.inference.model import Model
from ntulm.language_model.tokens import tokenise
from ntulm.posts import Posts
from ntulm.serving import neighbours
from ntulm.serving.batcher import Batcher
from ntulm.serving.faults import MISTAKE, Fault, overloaded
from ntulm.serving.guard import Guard
from ntulm.serving.keeper import Keeper, Served
from ntulm.serving.limits import Limits
from ntulm.serving.messages import (
    ClassifyRequest,
    Embeddings,
    EmbeddingsRequest,
    Labels,
    Post,
    Similar,
    SimilarRequest,
)
from ntulm.serving.metrics import Metrics

ABOUT = "Post embeddings that know who wrote the post and which hashtags it carries, and labels."


class Service:
    """What the routes share: the model in use, the line of posts, the counters."""

    def __init__(self, keeper: Keeper, limits: Limits, key: str | None) -> None:
        self.keeper = keeper
        self.limits = limits
        self.key = key
        self.metrics = Metrics()
        self.metrics.model.info(_about(keeper.current))
        self.batcher = Batcher(limits, self.metrics)
        self.searching = 0

    async def reload(self) -> Served:
        """Let the model that the source stands for now take over.

        Raises:
            Fault: it cannot be loaded, or another one is being loaded.
        """
        if self.keeper.busy.locked():
            raise Fault(409, "a model is being loaded already", "busy")
        try:
            served = await self.keeper.reload(self.batcher.between)
        except Exception as error:  # whatever a directory can do wrong: the model in use stays
            self.metrics.reloads.labels("failed").inc()
            reason = str(error) if isinstance(error, UserError) else type(error).__name__
            raise Fault(500, f"the model in use stays: {reason}", "not_loaded") from error
        self.metrics.reloads.labels("loaded").inc()
        self.metrics.model.info(_about(served))
        return served

    def served(self, wanted: str | None) -> Served:
        """The model in use; a Fault where a request wants another one."""
        served = self.keeper.current
        if wanted not in (None, served.name, served.version):
            raise Fault(404, f"model: another one than {served.name!r}, which is in use", "model_not_found")
        return served

    async def read(self, given: Any, model: Model) -> Posts:
        """The posts of a request.

        Raises:
            Fault: there is none, there are too many, one is too long, or one is no post.
        """
        inputs = given if isinstance(given, list) else [given]
        if not inputs or len(inputs) > self.limits.posts:
            raise _wrong(f"input: {len(inputs)} posts; expected 1 to {self.limits.posts}")
        for number, post in enumerate(inputs):
            text = post.get("text") if isinstance(post, dict) else post
            if isinstance(text, str) and len(text) > self.limits.characters:
                raise _wrong(f"input[{number}]: {len(text):,} characters; expected {self.limits.characters:,} at most")
            if isinstance(post, list) or (isinstance(post, int) and not isinstance(post, bool)):
                raise _wrong(f"input[{number}]: tokens; expected a text, or an object with at least `text`")
        try:
            return await asyncio.to_thread(model.read, inputs)
        except UserError as error:
            raise _wrong(str(error).replace("posts[", "input[", 1)) from error


def create_app(service: Service) -> Any:
    """The app with its guard."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await service.batcher.stop()

    app = FastAPIOffline(redoc_url=None, title="ntulm", version=ntulm.__version__, description=ABOUT, lifespan=lifespan)
    app.add_exception_handler(Fault, _fault)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _mistake)
    _add_posts(app, service)
    _add_operations(app, service)
    _describe(app, has_key=service.key is not None)
    return Guard(app, service.limits, service.metrics, service.key)


def _add_posts(app: FastAPI, service: Service) -> None:
    @app.post("/v1/embeddings", response_model=Embeddings, tags=["posts"])
    async def embeddings(asked: EmbeddingsRequest) -> Response:
        """Vectors of posts, in the form of OpenAI's embeddings."""
        served = service.served(asked.model)
        width = served.model.encoder.width
        if asked.dimensions not in (None, width):
            raise _wrong(f"dimensions: {asked.dimensions}; the model's vectors have {width}")
        posts = await service.read(asked.input, served.model)
        encoded = _as_base64 if asked.encoding_format == "base64" else _as_floats
        data, usage = await service.batcher.submit(served.model, posts, encoded)
        return _json(served, {"object": "list", "data": data, "model": served.name, "usage": usage})

    @app.post("/v1/classify", response_model=Labels, tags=["posts"])
    async def classify(asked: ClassifyRequest) -> Response:
        """Labels of posts, with the probability of every class."""
        served = service.served(asked.model)
        task = _task(served.model, asked.task)
        posts = await service.read(asked.input, served.model)

        def labelled(model: Model, own: Posts, vectors: np.ndarray) -> tuple[Any, Any]:
            return _labels(model, own, vectors, task, asked.top), _usage(model, own)

        data, usage = await service.batcher.submit(served.model, posts, labelled)
        return _json(served, {"data": data, "task": task, "model": served.name, "usage": usage})

    @app.post("/v1/similar", response_model=Similar, tags=["posts"])
    async def similar(asked: SimilarRequest) -> Response:
        """The users, hashtags and so on of the embedding table that lie nearest to one of it."""
        served = service.served(asked.model)
        if service.searching >= service.limits.searches:
            raise overloaded(f"{service.searching} searches wait already", 1)
        service.searching += 1
        try:
            data = await asyncio.to_thread(_similar, served.model, asked)
        finally:
            service.searching -= 1
        return _json(served, {"data": data, "model": served.name})


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", tags=["operation"])
    async def models() -> dict[str, Any]:
        """The model in use."""
        served = service.keeper.current
        about = {"id": served.name, "object": "model", "created": int(served.since.timestamp()), "owned_by": "ntulm"}
        about |= {"version": served.version, "variant": served.model.settings.variant, "tasks": served.model.tasks}
        return {"object": "list", "data": [about | {"dimensions": served.model.encoder.width}]}

    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/ready", tags=["operation"])
    async def ready() -> dict[str, str]:
        """A model is in use and there is room for posts; else 503."""
        if service.batcher.waiting >= service.limits.waiting or service.batcher.stopping:
            raise overloaded("no room for more posts", 1)
        return {"status": "ready", "version": service.keeper.current.version}

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/admin/reload", tags=["operation"])
    async def reload() -> dict[str, str]:
        """Let the model that `--model` stands for now take over; needs a key."""
        if service.key is None:
            raise Fault(403, "this server has no key; start it with NTULM_API_KEY, or send it SIGHUP", "no_key")
        served = await service.reload()
        return {"model": served.name, "version": served.version}


def _describe(app: FastAPI, has_key: bool) -> None:
    """Add to the interface's schema that of a post, to which `input` refers, and the key."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        schema["components"]["schemas"].setdefault("Post", Post.model_json_schema())
        if has_key:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
        return schema

    app.openapi = described  # type: ignore[method-assign]


def _task(model: Model, wanted: str | None) -> str:
    tasks = model.tasks
    if wanted is None and len(tasks) == 1:
        return tasks[0]
    if wanted is None or wanted not in (*tasks, *model.classifiers):
        raise _wrong(f"task: none of this model's; it has {', '.join(tasks) or 'no classifier'}")
    return wanted


def _as_floats(model: Model, posts: Posts, vectors: np.ndarray) -> tuple[Any, Any]:
    rows = enumerate(vectors.tolist())
    return [{"object": "embedding", "index": number, "embedding": row} for number, row in rows], _usage(model, posts)


def _as_base64(model: Model, posts: Posts, vectors: np.ndarray) -> tuple[Any, Any]:
    rows = (base64.b64encode(row.tobytes()).decode() for row in vectors.astype("<f4"))
    data = [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(rows)]
    return data, _usage(model, posts)


def _labels(model: Model, posts: Posts, vectors: np.ndarray, task: str, top: int | None) -> list[dict[str, Any]]:
    found = []
    for number, one in enumerate(model.label(posts, vectors, task)):
        likeliest = sorted(one.probabilities.items(), key=lambda pair: -pair[1])[:top]
        found.append({"index": number, "labels": one.labels, "probabilities": dict(likeliest), "known": one.known})
    return found


def _usage(model: Model, posts: Posts) -> dict[str, int]:
    encoder = model.encoder
    tokens = len(tokenise(posts.seen_by(encoder.variant).texts, encoder.tokenizer, encoder.batches).ids)
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _similar(model: Model, asked: SimilarRequest) -> list[dict[str, Any]]:
    types = [asked.type] if asked.types is None else asked.types
    try:
        row = neighbours.row_of(model, asked.type, asked.key)
        for kind in types:
            neighbours.row_of(model, kind, asked.key)  # says which type there is not
    except UserError as error:
        raise _wrong(str(error)) from error
    if row < 0:
        raise Fault(404, "key: not in the embedding table of this model", "unknown_ntu")
    return [found._asdict() for found in neighbours.nearest(model.table, row, types, asked.top)]


def _about(served: Served) -> dict[str, str]:
    return {"name": served.name, "version": served.version, "variant": served.model.settings.variant}


def _json(served: Served, value: Any) -> JSONResponse:
    return JSONResponse(value, headers={"X-Model-Version": served.version})


def _wrong(message: str) -> Fault:
    return Fault(422, message, "invalid_value")


async def _fault(_: HttpRequest, fault: Any) -> Response:
    response: Response = fault.response()
    return response


async def _invalid(request: HttpRequest, error: Any) -> Response:
    """The first mistake by its place and rule, without the value."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return Fault(415, "Content-Type: expected application/json", "wrong_content_type").response()
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    is_json = first["type"] == "json_invalid"
    message = "body: no JSON" if is_json else f"{place}: {first['msg']}"
    return Fault(400 if is_json else 422, message, "invalid_json" if is_json else "invalid_value").response()


async def _mistake(_: HttpRequest, error: Any) -> Response:
    return MISTAKE.response()


async def _http(_: HttpRequest, error: Any) -> Response:
    return Fault(error.status_code, str(error.detail), "http", dict(error.headers or {})).response()
