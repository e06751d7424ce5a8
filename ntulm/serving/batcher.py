"""Requests that wait are encoded together: one thread does the work, what arrives meanwhile is the next batch.

There is no timer: a lone request starts at once, and the more arrive while a batch is encoded, the larger is the next.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ntulm.inference.model import Model
from ntulm.language_model.encoder import Encoder
from ntulm.posts import Posts
from ntulm.serving.faults import Fault, overloaded
from ntulm.serving.limits import Limits
from ntulm.serving.metrics import Metrics

Finish = Callable[[Model, Posts, np.ndarray], Any]
CPU_BATCH = 8  # posts
KEPT = 0.9  # of the earlier rate, when a batch was measured


@dataclass(frozen=True)
class Job:
    """The posts of one request, read by the model that shall encode them."""

    model: Model
    posts: Posts
    finish: Finish  # vectors float32 [n, H] to an answer
    answer: asyncio.Future[Any]


class Batcher:
    """A bounded line of jobs, and the thread that works on them."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self.jobs: deque[Job] = deque()
        self.waiting = 0  # posts of `jobs`
        self.rate = 0.0  # posts per second
        self.thread = ThreadPoolExecutor(1, "ntulm-encoder")
        self.arrived = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.stopping = False

    def start(self) -> None:
        """Work from now on; called in the event loop."""
        self.task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Finish what waits, then end."""
        self.stopping = True
        self.arrived.set()
        if self.task is not None:
            await self.task
        self.thread.shutdown()

    async def submit(self, model: Model, posts: Posts, finish: Finish) -> Any:
        """Wait for the posts' turn; what `finish` makes of them.

        Raises:
            Fault: 503, too many posts wait.
        """
        if self.stopping:
            raise Fault(503, "the server stops", "stopping", {"Retry-After": "1"})
        if self.waiting + len(posts) > self.limits.waiting:
            seconds = self.waiting / self.rate if self.rate else 1.0
            raise overloaded(f"{self.waiting} posts wait already", seconds)
        job = Job(model, posts, finish, asyncio.get_running_loop().create_future())
        self.jobs.append(job)
        self._waits(len(posts))
        self.arrived.set()
        return await job.answer

    async def between(self, action: Callable[[], Any]) -> Any:
        """Do something in the thread, between two batches: loading a model changes settings that encoding reads."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, action)

    def _waits(self, change: int) -> None:
        self.waiting += change
        self.metrics.waiting.set(self.waiting)

    def _take(self) -> list[Job]:
        """The next jobs of one model; at least one, and no more posts than a batch has."""
        taken: list[Job] = []
        count = 0
        while self.jobs:
            job = self.jobs[0]
            if taken and (job.model is not taken[0].model or count + len(job.posts) > self.limits.batch):
                break
            self.jobs.popleft()
            self._waits(-len(job.posts))
            if not job.answer.done():  # nobody waits for it any more
                taken.append(job)
                count += len(job.posts)
        return taken

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self.jobs:
                if self.stopping:
                    return
                self.arrived.clear()
                await self.arrived.wait()
                continue
            jobs = self._take()
            if jobs:
                started = time.perf_counter()
                answers = await loop.run_in_executor(self.thread, _encode, jobs)
                self._measure(sum(len(job.posts) for job in jobs), time.perf_counter() - started)
                for job, answer in zip(jobs, answers, strict=True):
                    _give(job.answer, answer)

    def _measure(self, posts: int, seconds: float) -> None:
        self.metrics.posts.inc(posts)
        self.metrics.batch.observe(posts)
        self.metrics.encoding.inc(seconds)
        rate = posts / max(seconds, 1e-6)
        self.rate = KEPT * self.rate + (1 - KEPT) * rate if self.rate else rate


def _give(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _encode(jobs: Sequence[Job]) -> list[Any]:
    """An answer or an exception per job; where a batch fails, each of its jobs is tried alone."""
    try:
        posts = Posts(pa.concat_tables([job.posts.table for job in jobs]))
        vectors = spread(jobs[0].model.encoder, len(posts)).encode(posts)
    except Exception as error:  # whatever it is, it is one request's, and the others get their answers
        return [error] if len(jobs) == 1 else [answer for job in jobs for answer in _encode([job])]
    ends = np.cumsum([len(job.posts) for job in jobs])
    return [_finish(job, own) for job, own in zip(jobs, np.split(vectors, ends[:-1]), strict=True)]


def spread(encoder: Encoder, posts: int) -> Encoder:
    """The encoder with small batches on a CPU: each is encoded by one core, and padded to its longest post alone.

    Of few posts, those in a large batch differ much in length: 64 posts take 1.9 times as long in one as in eights.
    """
    if encoder.model.device.type != "cpu" or not isinstance(encoder, Encoder):
        return encoder
    per_core = -(-posts // torch.get_num_threads())
    return replace(encoder, batch_size=max(1, min(encoder.batch_size, CPU_BATCH, per_core)))


def _finish(job: Job, vectors: np.ndarray) -> Any:
    try:
        return job.finish(job.model, job.posts, vectors)
    except Exception as error:  # handed to the request that it belongs to
        return error
