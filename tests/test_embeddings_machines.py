"""Which processes train where, how machines meet, and that a process or machine that fails ends all, in one line."""

import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from planted_graph import config, write_planted

from ntulm.embeddings import machines, pbg, trainers
from ntulm.embeddings.machines import ALONE, Share, met, share
from ntulm.embeddings.trainers import LostError, Trainers
from ntulm.errors import UserError

TWO = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "first", "PET_MASTER_PORT": "29500"}


def test_without_the_variable_and_without_partitions_there_is_one_process():
    assert share(8, {}) == share(8, TWO) == share(1, {"NTULM_RANKS": "4"}) == share(8, {"NTULM_RANKS": "all"}) == ALONE
    assert (ALONE.count, ALONE.ranks, ALONE.leads, ALONE.several) == (1, range(1), True, False)


def test_processes_are_numbered_over_the_machines():
    here = share(8, {"NTULM_RANKS": "2"})
    assert (here.count, here.ranks, here.leads, here.several) == (2, range(2), True, False)
    second = share(8, {"NTULM_RANKS": "2", **TWO})
    assert (second.count, second.ranks, second.leads, second.several) == (4, range(2, 4), False, True)
    assert second.address == ("first", 29500)
    assert share(4, {"NTULM_RANKS": "all", **TWO}).ranks == range(1, 2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"NTULM_RANKS": "0"}, "NTULM_RANKS: '0'; expected a number from 1 on, or all"),
        ({"NTULM_RANKS": "two"}, "NTULM_RANKS: 'two'"),
        ({"NTULM_RANKS": "3"}, "partitions: 8 for 6 processes .*; expected at least 12, two per process"),
        ({"PET_NNODES": "1:2"}, "PET_NNODES: '1:2'; expected a number from 1 on"),
        ({"PET_NODE_RANK": "2"}, "PET_NODE_RANK: 2 of 2 machines"),
        ({"PET_NODE_RANK": ""}, "PET_NODE_RANK: ''; expected a number from 0 on"),
        ({"PET_MASTER_ADDR": ""}, "PET_MASTER_ADDR: not set; expected the name or address of the first machine"),
        ({"PET_MASTER_PORT": "²"}, "PET_MASTER_PORT: '²'; expected a number from 1 on"),
    ],
)
def test_what_the_environment_cannot_mean_is_told(changes, told):
    with pytest.raises(UserError, match=told):
        share(8, {"NTULM_RANKS": "1", **TWO, **changes})


def test_partitions_are_asked_for_on_several_machines():
    with pytest.raises(UserError, match="partitions: 1 for 2 processes"):
        share(1, {"NTULM_RANKS": "1", **TWO})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def machine(own: Share, fingerprint: str, found: SimpleQueue[Any], until: threading.Event | None) -> None:
    """One of those that meet: what it found, then what it lost; with no event, it fails right after the meeting."""
    try:
        with met(own, fingerprint) as meeting:
            found.put(meeting.url)
            meeting.watch(found.put)
            if until is None:
                raise ConnectionError
            until.wait(10)
    except (UserError, ConnectionError) as error:
        found.put(error)


def started(own: Share, fingerprint: str, until: threading.Event | None) -> SimpleQueue[Any]:
    found: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=machine, args=(own, fingerprint, found, until), daemon=True).start()
    return found


def shares(count: int) -> list[Share]:
    port = free_port()
    return [Share(count, own, 1, ("127.0.0.1", port)) for own in range(count)]


def test_machines_meet_and_part_in_peace():
    done = threading.Event()
    found = [started(own, "same", done) for own in shares(3)]
    urls = {one.get(timeout=20) for one in found}
    assert len(urls) == 1
    assert urls.pop().startswith("tcp://127.0.0.1:")
    done.set()
    time.sleep(0.3)
    assert all(one.empty() for one in found)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_machine_that_ends_too_early_is_told_to_the_others(failing):
    going = threading.Event()
    pair = shares(2)
    found = [started(own, "same", None if own.own == failing else going) for own in pair]
    left = found[1 - failing]
    assert left.get(timeout=20).startswith("tcp://")
    assert left.get(timeout=20) == f"machine {failing} has ended or is out of reach; see what it says itself"
    going.set()


def test_machines_that_differ_are_refused_on_both():
    pair = shares(2)
    found = [started(own, f"graph {own.own}", None) for own in pair]
    told = [str(one.get(timeout=20)) for one in found]
    assert all(one.startswith("machine 1 has another graph, parameters, number or NTULM_RANKS") for one in told)


def test_two_machines_of_one_number_are_refused():
    first, second, _ = shares(3)
    found = [started(own, "same", None) for own in (first, second, second)]
    assert "each a PET_NODE_RANK of its own" in str(found[0].get(timeout=20))


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\n", b"[" * 5000, b'{"own": true}\n', b'{"own": -1}\n', b""]
)
def test_what_is_no_machine_is_turned_away(said):
    first, second = shares(2)
    done = threading.Event()
    found = [started(first, "same", done)]
    for _ in range(100):
        try:
            stranger = socket.create_connection(first.address, 1)
            break
        except OSError:
            time.sleep(0.05)
    with stranger:
        with suppress(OSError):  # it may have been turned away already
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR)
        found.append(started(second, "same", done))
        assert [one.get(timeout=20)[:6] for one in found] == ["tcp://"] * 2
    done.set()


def test_who_does_not_come_is_told(monkeypatch):
    monkeypatch.setattr(machines, "PATIENCE", 0.6)
    first, second = shares(2)
    with pytest.raises(LostError, match="0 of 1 other machines have come to port"), met(first, "same"):
        pass
    with pytest.raises(LostError, match=r"machine 0 cannot be reached at 127\.0\.0\.1:"), met(second, "same"):
        pass


def test_a_port_in_use_is_told():
    with socket.create_server(("", free_port())) as server:
        first = Share(2, 0, 1, ("127.0.0.1", server.getsockname()[1]))
        with pytest.raises(UserError, match=r"PET_MASTER_PORT: port .* cannot be used"), met(first, "same"):
            pass


PROGRAM = """\
#!{python}
import json, os, signal, sys, time
settings = json.loads(sys.argv[-1])
what = settings["what"][settings["rank"]]
print(settings["rank"], what, os.environ["PYTHONHASHSEED"], flush=True)
if what == "killed":
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
if what == "fails":
    time.sleep(0.5)
    sys.exit("ValueError: of its own")
if what == "cut off":
    sys.exit("RuntimeError: Connection closed by peer")
if what == "waits":
    os.read(0, 1)
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> None:
    """In the place of Python, a program that does as the settings say."""
    path: Path = tmp_path / "program"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setattr(trainers.sys, "executable", str(path))


def lines_of(*what: str) -> list[str]:
    with Trainers({"what": what}, range(len(what)), len(what)) as found:
        return [line.strip() for line in found.lines()]


def test_what_processes_print_is_read_to_the_end(program):
    assert lines_of("ends") == ["0 ends 0"]
    assert sorted(lines_of("ends", "ends")) == ["0 ends 0", "1 ends 0"]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (("killed",), "PyTorch-BigGraph was ended by SIGKILL; the machine may have run out of memory"),
        (
            ("waits", "killed"),
            "the process of rank 1 of 2 was ended by SIGKILL; the machine may have run out of memory",
        ),
        (("cut off", "killed", "waits"), "the process of rank 1 of 3 was ended by SIGKILL"),
    ],
)
def test_a_process_that_is_killed_ends_the_others_and_is_told(program, what, told):
    start = time.monotonic()
    with pytest.raises(UserError, match=told):
        lines_of(*what)
    assert time.monotonic() - start < trainers.GRACE_SECONDS


def test_the_cause_is_told_and_not_who_was_cut_off_by_it(program):
    with pytest.raises(RuntimeError, match=r"PyTorch-BigGraph, rank 1 of 2, ended with code 1(?s:.*)of its own"):
        lines_of("cut off", "fails")


def test_who_is_cut_off_without_a_cause_tells_so(program, monkeypatch):
    monkeypatch.setattr(trainers, "CAUSE_SECONDS", 0.1)
    with pytest.raises(RuntimeError, match=r"rank 0 of 2(?s:.*)Connection closed by peer"):
        lines_of("cut off", "waits")


def test_a_lost_machine_ends_the_processes_here(program):
    with pytest.raises(LostError, match="machine 1 has ended"), Trainers({"what": ["waits"]}, range(1), 2) as found:
        lines = found.lines()
        assert json.loads(next(lines).split()[0]) == 0
        found.lose("machine 1 has ended")
        next(lines)
    assert all(trainer.process.poll() is not None for trainer in found._trainers.values())


RECORDER = """\
#!{python}
import json, pathlib, sys
settings = json.loads(sys.argv[-1])
pathlib.Path("{folder}", str(settings["rank"])).write_text(sys.argv[-1])
if settings["rank"] == 0:
    print(1.5)
"""


def test_the_engine_is_given_the_same_meeting_on_all_machines(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text(RECORDER.format(python=sys.executable, folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setattr(trainers.sys, "executable", str(program))
    monkeypatch.setattr(pbg, "_model", lambda *_: "the model")
    pbg_input = write_planted(tmp_path / "input")
    port = free_port()
    first, second = (Share(2, own, 2, ("127.0.0.1", port)) for own in (0, 1))
    works = [tmp_path / name for name in ("first", "second")]
    for work in works:
        work.mkdir()
    told: list[tuple[int, float]] = []
    with ThreadPoolExecutor(1) as pool:
        helping = pool.submit(pbg.assist, config(partitions=8), pbg_input, works[1], second)
        found = pbg.train(config(partitions=8), pbg_input, works[0], lambda *one: told.append(one), first)
        helping.result(20)
    assert found == ("the model", [1.5])
    assert told == [(1, 1.5)]
    given = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(4)]
    assert [one["rank"] for one in given] == [0, 1, 2, 3]
    assert {one["config"]["num_machines"] for one in given} == {4}
    assert len({one["config"]["distributed_init_method"] for one in given}) == 1
    assert [one["config"]["entity_path"] for one in given] == [str(works[number]) for number in (0, 0, 1, 1)]
    assert all(len(one["config"]["edge_paths"]) == one["passes"] == 4 for one in given)
    assert given[0]["config"]["entities"]["user"] == {"num_partitions": 8}
