"""A sample of `make fuzz`: what is damaged is read or refused, and the runner sees what is neither."""

import random
import signal
import time

import fuzz
import pytest
from fuzz import FaultError, damaged, execute, run
from fuzz_targets import TARGETS

QUICK = {"exports": 22, "packed": 8, "parquet": 12, "model": 4, "params": 12}  # the others: MANY
MANY = 30


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_file_is_read_or_refused(target, tmp_path):
    before = signal.getsignal(signal.SIGALRM)
    said: list[str] = []
    tally = run(target, tmp_path / "own", 1_000_000, QUICK.get(target, MANY), time.monotonic() + 60, said.append)
    signal.signal(signal.SIGALRM, before)
    assert said == []
    assert tally.executions > 0


def test_damage_is_repeatable_and_changes_something():
    content = bytes(range(256)) * 4
    found = [damaged(content, random.Random(seed)) for seed in range(60)]
    assert found == [damaged(content, random.Random(seed)) for seed in range(60)]
    assert sum(one != content for one in found) > 40
    assert len(set(found)) > 40


def test_a_crash_and_a_hang_are_faults(tmp_path, monkeypatch):
    example = tmp_path / "example"
    example.mkdir()
    (example / "file").write_bytes(b"content")

    def crashes(folder):
        raise KeyError("x")

    with pytest.raises(FaultError, match="KeyError: 'x'"):
        execute(crashes, example, tmp_path / "work", 0)
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    monkeypatch.setattr(signal, "alarm", lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds / 5))
    before = signal.signal(signal.SIGALRM, fuzz._too_slow)
    with pytest.raises(FaultError, match="TimeoutError: no answer"):
        execute(lambda folder: time.sleep(5), example, tmp_path / "work", 0)
    signal.signal(signal.SIGALRM, before)
