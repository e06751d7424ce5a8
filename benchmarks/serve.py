"""Requests to a server: ours, and `encode` of sentence-transformers behind the same server, with the packaged MiniLM.

Run: `python -m benchmarks.serve [--seconds 5] [--rounds 3]`; a Markdown section on standard output. A client asks for
the vector of one post, waits for it and asks again; 1, 8 or 64 of them do so at once. The server is a process of its
own, the clients are another one on the same machine, whose time is in the figures of all sides.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROOT
from benchmarks.texts import write_texts

CLIENTS = (1, 8, 64)
SIDES = ("ours", "sentence-transformers")  # ours first
POSTS = 2000
AUTHORS = 1000
DIMENSION = 200
LEAST_COSINE = 0.999
INFINITY = "https://michaelfeil.eu/infinity/0.0.55/benchmarking/"
QUANTILES = (50, 95, 99)
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def write_model(folder: Path) -> None:
    """A model directory of the packaged MiniLM with a slot for authors: untrained, which takes as long."""
    import torch

    from ntulm.embeddings.table import write_table
    from ntulm.inference.directory import READING, Batches, Settings
    from ntulm.language_model.backbone import load_backbone, save_model
    from ntulm.language_model.slots import describe_slots
    from ntulm.params import load_params
    from ntulm.text import Reading
    from ntulm.variants import parse_variant

    params = load_params(ROOT / "params.yaml")
    scheme = params.ntus.scheme
    slots = describe_slots(scheme, parse_variant("author", scheme.of_posts))
    network, tokenizer, _ = load_backbone("minilm", 0, torch.device("cpu"))
    network.add_slots("author", slots, DIMENSION, [1.0], params.pretrain.slot, seed=0)
    folder.mkdir()
    save_model(network, tokenizer, folder)
    vectors = np.random.default_rng(0).standard_normal((AUTHORS, DIMENSION)).astype(np.float32)
    write_table(folder, ["user"] * AUTHORS, [f"author{number}" for number in range(AUTHORS)], vectors)
    source = Reading(casefold_users=True, mention_hosts=False, html=False, mentions_in_text=True)
    Settings("author", 0, scheme, Batches(128, False, False), source).write(folder / READING)


class Peer:
    """`encode` of sentence-transformers in the place of our encoder; the rest of the server is the same."""

    def __init__(self, encoder: Any) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        from ntulm.language_model.backbone import packaged_directory

        transformer = Transformer(str(packaged_directory()), max_seq_length=encoder.batches.max_length)
        modules = [transformer, Pooling(transformer.get_embedding_dimension(), "mean")]
        self.peer = SentenceTransformer(modules=modules, device=str(encoder.model.device))
        self.encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode(self, posts: Any) -> np.ndarray:
        """Float32 [N, H], of the texts alone; in batches of the size that suits ours and it best on a CPU."""
        from ntulm.serving.batcher import CPU_BATCH

        vectors: np.ndarray = self.peer.encode(posts.texts, batch_size=CPU_BATCH, show_progress_bar=False)
        return vectors


def serve(folder: Path, side: str) -> None:
    """Serve until killed; the port is the first line on standard output."""
    from ntulm.serving.app import Service
    from ntulm.serving.keeper import Keeper
    from ntulm.serving.limits import USUAL
    from ntulm.serving.run import Server

    keeper = Keeper(str(folder / "model"), side)
    served = keeper.start()
    if side != SIDES[0]:
        encoder: Any = Peer(served.model.encoder)
        keeper.served = replace(served, model=replace(served.model, encoder=encoder))

    async def run() -> None:
        server = Server(Service(keeper, USUAL, None), "127.0.0.1", 0)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await task

    asyncio.run(run())


async def load(port: int, bodies: list[bytes], clients: int, seconds: float) -> tuple[list[float], float]:
    """The seconds that each answer took, and all of them together; an answer other than 200 ends the benchmark."""
    times: list[float] = []
    begun = time.perf_counter()
    end = begun + seconds

    async def client(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = first
        while time.perf_counter() < end:
            started = time.perf_counter()
            await _ask(reader, writer, bodies[number % len(bodies)])
            times.append(time.perf_counter() - started)
            number += clients
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return times, time.perf_counter() - begun


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> bytes:
    writer.write(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.split(":")[1]) for line in answered.split("\r\n") if line.startswith("content-length"))
    answer = await reader.readexactly(length)
    if not answered.startswith("http/1.1 200"):
        sys.exit(f"{answered.splitlines()[0]}: {answer[:200]!r}")
    return answer


def measure(folder: Path, side: str, seconds: float) -> dict[int, list[float]]:
    """Per number of clients: answers per second, then the quantiles of their times in milliseconds."""
    command = [sys.executable, "-m", "benchmarks.serve", "--side", side, "--input", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            bodies = [json.dumps({"input": post}).encode() for post in posts_of(folder)]
            asyncio.run(load(port, bodies, 8, min(seconds, 2.0)))  # warms up
            found = {}
            for clients in CLIENTS:
                times, elapsed = asyncio.run(load(port, bodies, clients, seconds))
                quantiles = [1000 * float(np.percentile(times, share)) for share in QUANTILES]
                found[clients] = [len(times) / elapsed, *quantiles]
                print(f"{side}: {clients} clients: {found[clients][0]:.0f} requests/s", file=sys.stderr, flush=True)
            if side == SIDES[0]:
                check(folder, port, bodies)
        finally:
            server.terminate()
    return found


def posts_of(folder: Path) -> list[dict[str, str]]:
    """Made-up posts, each by one of the authors."""
    texts: list[str] = json.loads((folder / "texts.json").read_text())["posts"]
    return [{"text": text, "author": f"author{number % AUTHORS}"} for number, text in enumerate(texts)]


def check(folder: Path, port: int, bodies: list[bytes]) -> None:
    """The server's vectors are those of the loaded model."""
    import ntulm

    async def some() -> list[list[float]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers = [json.loads(await _ask(reader, writer, body)) for body in bodies[:20]]
        writer.close()
        return [answer["data"][0]["embedding"] for answer in answers]

    found = np.array(asyncio.run(some()))
    expected = ntulm.load(folder / "model").encode(posts_of(folder)[:20])
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    if cosines.min() < LEAST_COSINE:
        sys.exit(f"a vector of the server has cosine {cosines.min():.5f} with that of `encode`")


def section(seconds: float, rounds: int) -> str:
    """All sides in turn; the medians as Markdown."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        write_texts(folder / "texts.json", posts=POSTS)
        write_model(folder / "model")
        turns = [{side: measure(folder, side, seconds) for side in SIDES} for _ in range(rounds)]
    rows = [row(turns, clients, side) for clients in CLIENTS for side in SIDES]
    command = f"`python -m benchmarks.serve --seconds {seconds:g} --rounds {rounds}`"
    return "\n".join(
        [
            "## Serving",
            "",
            f"{command}: one post per request, as many clients",
            "at once as the first column says, each waiting for its answer; both sides behind `ntulm serve`.",
            "",
            "| clients | side | requests/s | p50 ms | p95 ms | p99 ms | ours is times as fast |",
            "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            "text-embeddings-inference is an image, and not on the package index. Published of it, by",
            f"[another server's authors]({INFINITY}), for texts of 450 tokens, 256 per request: on a CPU (bge-small)",
            "0.23 times as fast as sentence-transformers behind a plain server, on an NVIDIA L4 (bge-large) 3.2 times.",
            "",
        ]
    )


def row(turns: list[dict[str, dict[int, list[float]]]], clients: int, side: str) -> str:
    """A line of the table: medians over the turns."""
    of_side = [turn[side][clients] for turn in turns]
    rate, *quantiles = (statistics.median(values) for values in zip(*of_side, strict=True))
    ratios = [turn[SIDES[0]][clients][0] / turn[side][clients][0] for turn in turns]
    ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
    cells = [str(clients), side, f"{rate:,.0f}", *(f"{value:,.1f}" for value in quantiles)]
    return f"| {' | '.join([*cells, '' if side == SIDES[0] else ratio])} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="per number of clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--input", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(arguments.input, arguments.side)
    else:
        print(section(arguments.seconds, arguments.rounds))


if __name__ == "__main__":
    main()
