"""Several processes on one study: here forked, with an objective of milliseconds."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from ntulm import shared_study
from ntulm.errors import UserError
from ntulm.shared_study import STUDIES, Given, SharedStudy, abandoned, open_study, own_folder, remove_leftovers

FORK = multiprocessing.get_context("fork")
COMPLETE, FAIL, RUNNING = TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING
PATIENCE = 120.0  # seconds that a test waits for what takes milliseconds


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """Workers that look at each other often, in a folder without a study; nobody is given up for being slow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(STUDIES, raising=False)
    monkeypatch.setattr(shared_study, "POLL", 0.02)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def draw(values, before, number):
    """The smallest number that no trial before this one has: two that do not know of each other draw the same."""
    taken = {trial.params["x"] for trial in before}
    return {"x": next(value for value in range(values) if value not in taken)}


def suggest(values, trial):
    return {"x": trial.suggest_int("x", 0, values - 1)}


def shared(folder: Path = Path("trials"), values: int = 100) -> SharedStudy:
    study, _ = open_study("numbers", ["maximize"], Path("journal.log"))
    return SharedStudy(study, folder, partial(draw, values), partial(suggest, values))


def square(trial, settings, folder):
    time.sleep(0.02)
    return (-((settings["x"] - 7.0) ** 2),)


def work(count, objective=square, folder=Path("trials")):
    shared(folder).work(count, objective)


def started(*arguments, host=None):
    """A worker, here or on another machine."""

    def main():
        if host is not None:
            socket.gethostname = lambda: host
        work(*arguments)

    process = FORK.Process(target=main)
    process.start()
    return process


def ended(*processes):
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def settings(study: SharedStudy) -> list[int]:
    return sorted(trial.params["x"] for trial in study.trials(COMPLETE))


def test_workers_share_the_trials_of_a_study():
    ended(*(started(20) for _ in range(3)))
    found = shared()
    assert settings(found) == list(range(20))
    assert found.study.best_params == {"x": 7}
    assert found.trials(RUNNING) == []
    assert len({trial.user_attrs["worker"][1] for trial in found.trials(COMPLETE)}) == 20


def test_more_workers_than_trials():
    ended(*(started(1) for _ in range(3)))
    assert settings(shared()) == [0]


def test_a_finished_study_is_left_alone_and_a_larger_one_goes_on():
    work(3)
    work(3)
    assert settings(shared()) == [0, 1, 2]
    work(5)
    assert settings(shared()) == [0, 1, 2, 3, 4]


def hang(trial, settings, folder):
    """The first trial never ends."""
    if settings["x"] == 0 and not Path("hangs").exists():
        (folder / "half").touch()
        Path("hangs.new").write_text(str(os.getpid()))
        Path("hangs.new").rename("hangs")
        time.sleep(3600)
    return square(trial, settings, folder)


def killed(*workers):
    """The one that hangs, of these; the others."""
    until(Path("hangs").exists)
    process = int(Path("hangs").read_text())
    os.kill(process, signal.SIGKILL)
    (dead,) = [worker for worker in workers if worker.pid == process]
    dead.join(PATIENCE)
    return [worker for worker in workers if worker is not dead]


def test_the_trial_of_a_killed_worker_is_made_by_the_others(capfd):
    dead = started(6, hang)
    until(Path("hangs").exists)
    others = [started(6), started(6)]
    until(lambda: len(shared().trials(COMPLETE)) == 5)
    assert all(process.is_alive() for process in others)  # they wait for the sixth
    killed(dead)
    ended(*others)
    assert settings(shared()) == list(range(6))
    assert "trial 0 on" in capfd.readouterr().err


def test_a_killed_worker_is_seen_at_once_by_the_next_one_here():
    killed(started(2, hang))
    work(2)
    found = shared()
    assert [trial.state for trial in found.study.trials] == [FAIL, COMPLETE, COMPLETE]
    assert found.study.trials[1].params == {"x": 0}  # what was not finished comes first
    assert [path.name for path in Path("trials").iterdir()] == ["lock"]


def test_a_killed_worker_on_another_machine_is_given_up_after_a_silence(monkeypatch):
    monkeypatch.setattr(shared_study, "BEAT", 0.5)  # else it is killed while it writes: its lock holds 30 seconds
    monkeypatch.setattr(shared_study, "SILENCE", 3.0)
    killed(started(3, hang, Path("elsewhere"), host="elsewhere"))
    work(3)
    assert settings(shared()) == [0, 1, 2]
    assert [trial.number for trial in shared().trials(FAIL)] == [0]


def test_a_slow_worker_on_another_machine_is_waited_for(monkeypatch):
    monkeypatch.setattr(shared_study, "BEAT", 0.2)
    monkeypatch.setattr(shared_study, "SILENCE", 5.0)

    def slow(trial, settings, folder):
        Path("hangs").touch()
        time.sleep(8.0)
        return square(trial, settings, folder)

    other = started(2, slow, Path("elsewhere"), host="elsewhere")
    until(Path("hangs").exists)
    work(2)
    ended(other)
    assert settings(shared()) == [0, 1]
    assert shared().trials(FAIL) == []


def test_a_trial_that_was_given_up_does_not_count(capsys):
    found, made = shared(), []

    def given_up_once(trial, settings, folder):
        made.append(settings["x"])
        if len(made) == 1:
            found.study.tell(trial.number, state=FAIL)
        return (1.0,)

    found.work(2, given_up_once)
    assert made == [0, 0, 1]
    assert len(found.trials(COMPLETE)) == 2
    assert "trial 0 does not count" in capsys.readouterr().err


def test_an_objective_that_fails_ends_the_work_and_its_trial_is_made_again():
    def fail(trial, settings, folder):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work(2, fail)
    work(2)
    assert settings(shared()) == [0, 1]


def test_what_is_pruned_counts_and_is_not_drawn_again():
    def prune(trial, settings, folder):
        raise optuna.TrialPruned

    work(2, prune)
    work(3)
    assert settings(shared()) == [2]


def test_a_trial_waits_for_the_settings_of_those_before_it(monkeypatch, capsys):
    monkeypatch.setattr(shared_study, "PATIENCE", 0.0)
    found = shared()
    first = found.study.ask()
    worker = threading.Thread(target=work, args=(2,))
    worker.start()
    until(lambda: len(shared().study.trials) == 2)
    time.sleep(0.3)
    assert shared().study.trials[1].params == {}
    found.study.sampler = given = Given()
    given.settings = {"x": 0}
    suggest(100, first)
    first.set_user_attr("drawn", True)
    found.study.tell(first, 0.0)
    worker.join(PATIENCE)
    assert settings(found) == [0, 1]
    assert "waits for the settings of the trials before 1" in capsys.readouterr().err


def test_a_folder_in_use_is_no_leftover():
    parent = Path("trials")
    with own_folder(parent) as folder:
        (folder / "data").mkdir()
        assert not abandoned(folder)
        remove_leftovers(parent)
        assert (folder / "data").is_dir()
    assert not folder.exists()
    assert not abandoned(folder)


def test_folders_of_the_dead_are_leftovers():
    dead = Path("trials/dead")
    dead.mkdir(parents=True)
    (dead / "lock").touch()
    (Path("trials/half-removed") / "data").mkdir(parents=True)
    assert abandoned(dead)
    remove_leftovers(Path("trials"))
    assert [path.name for path in Path("trials").iterdir()] == ["lock"]


def test_a_journal_on_a_shared_folder(monkeypatch, tmp_path):
    (tmp_path / "mounted").mkdir()
    monkeypatch.setenv(STUDIES, str(tmp_path / "mounted/studies.log"))
    ended(started(8, square, Path("one"), host="one"), started(8, square, Path("two"), host="two"))
    assert settings(shared()) == list(range(8))
    assert not Path("journal.log").exists()


def test_a_database_by_its_address(monkeypatch, tmp_path):
    monkeypatch.setenv(STUDIES, f"sqlite:///{tmp_path / 'studies.db'}")
    work(3)
    work(4)
    assert settings(shared()) == list(range(4))
    assert not Path("journal.log").exists()


@contextmanager
def postgresql(folder: Path):
    """The address of a server of the test's own, on a socket in its folder."""
    command = partial(subprocess.run, check=True, capture_output=True, cwd="/")
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data = folder / "data"
    command([*user, "initdb", "-D", str(data), "-U", "ntulm", "-A", "trust", "--no-sync"])
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    server = [*user, "pg_ctl", "-D", str(data), "-w", "-t", str(int(PATIENCE))]
    # To files: the server would keep a pipe open.
    command([*server, "-l", str(folder / "log"), "-o", options, "start"], capture_output=False)
    try:
        yield f"postgresql+psycopg://ntulm@/postgres?host={folder}"
    finally:
        command([*server, "-m", "immediate", "stop"])


@pytest.fixture
def database(tmp_path_factory):
    pytest.importorskip("psycopg")
    if subprocess.run(["which", "initdb", "pg_ctl"], capture_output=True, check=False).returncode:
        pytest.skip("no PostgreSQL here")
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pg.XXXXXX"], text=True).strip())  # a short socket path
    if os.geteuid() == 0:  # whom PostgreSQL does not serve
        subprocess.run(["chown", "postgres", folder], check=True)
    try:
        with postgresql(folder) as address:
            yield address
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.slow
def test_workers_share_a_study_in_postgresql(database, monkeypatch):
    monkeypatch.setenv(STUDIES, database)
    workers = [started(12, hang) for _ in range(3)]  # all of them find no table
    ended(*killed(*workers))
    assert settings(shared()) == list(range(12))
    assert Counter(trial.state for trial in shared().study.trials)[FAIL] >= 1


def test_a_folder_that_is_not_mounted_is_a_user_error(monkeypatch):
    monkeypatch.setenv(STUDIES, "/mnt/nowhere/studies.log")
    with pytest.raises(UserError, match=r"/mnt/nowhere/studies\.log: the folder /mnt/nowhere not found; NTULM_STUDIES"):
        shared()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nosuch://user:secret@host/name", "nosuch://user:***@host/name: no study can be kept there: Can't load"),
        ("postgresql+psycopg2://user:secret@host/name", "no driver for that (No module named 'psycopg2'); for Postgre"),
        ("sqlite:////nowhere/at/all.db", "unable to open database file; NTULM_STUDIES names another place"),
        ("://secret", "://…: no study can be kept there: "),
    ],
)
def test_an_address_that_leads_nowhere_is_a_user_error_without_its_password(address, message, monkeypatch):
    monkeypatch.setenv(STUDIES, address)
    monkeypatch.setattr(shared_study, "ATTEMPTS", 2)
    with pytest.raises(UserError) as caught:
        shared()
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_journal_is_a_user_error():
    Path("journal.log").write_text("trial,score\n1,0.5\n2,0.6\n")
    with pytest.raises(UserError, match=r"journal\.log: no study can be kept there: "):
        shared()


def test_the_module_needs_no_torch():
    code = "import sys, ntulm.shared_study; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
