"""What the server counts, for Prometheus. No label comes from a request but the path, which is one of PATHS."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

PATHS = frozenset(
    [
        "/v1/embeddings", "/v1/classify", "/v1/similar", "/v1/models", "/health", "/ready", "/metrics", "/docs",
        "/openapi.json", "/admin/reload",
    ]
)  # fmt: skip
OTHER = "other"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
POSTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        where: dict[str, Any] = {"registry": self.registry, "namespace": "ntulm"}
        self.requests = Counter("requests", "Requests answered", ["path", "status"], **where)
        self.seconds = Histogram("request_seconds", "From request to answer", ["path"], buckets=SECONDS, **where)
        self.answering = Gauge("answering_requests", "Requests that are being answered", **where)
        self.posts = Counter("posts", "Posts encoded", **where)
        self.batch = Histogram("batch_posts", "Posts encoded together", buckets=POSTS, **where)
        self.encoding = Counter("encoding_seconds", "Time spent on encoding", **where)
        self.waiting = Gauge("waiting_posts", "Posts that wait for their turn", **where)
        self.reloads = Counter("reloads", "Models loaded anew", ["outcome"], **where)
        self.model = Info("model", "The model in use", **where)
