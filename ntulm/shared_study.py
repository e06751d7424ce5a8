"""A search that several processes work on, on one machine or on several: an Optuna study, and whose turn it is.

Library of `ntulm/tune.py`. The study is in a journal beside the project, or where the environment's NTULM_STUDIES says:
a journal on a shared folder, or a database. All that the processes have to agree on is in there: no other lock is
shared, and no clock.

The storage numbers trials in one order. A trial waits until each one before it has its settings, then takes its own in
knowledge of those: so none is drawn twice, and the first so many that are not given up are the search. A trial gives
signs of life; one that falls silent is given up, and another is made in its place.
"""

import fcntl
import math
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal, NamedTuple

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ntulm.errors import UserError

STUDIES = "NTULM_STUDIES"
BEAT = 20.0  # seconds from one sign of life to the next
SILENCE = 300.0  # seconds without one after which a trial is given up; a worker that was killed here is seen at once
POLL = 0.5  # seconds from one look at the other workers to the next
PATIENCE = 5.0  # seconds of waiting that nobody is told of
ATTEMPTS = 5  # to open a database: workers that start at the same time make its tables at the same time
HELD = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)  # part of the search; one that failed is made again
WORKER, DRAWN, ALIVE = "worker", "drawn", "alive"  # what a trial says of itself to other workers
LOCK = "lock"

Settings = dict[str, Any]
Draw = Callable[[list[FrozenTrial], int], Settings]  # the trials before it and its number to the settings of a trial
Suggest = Callable[[optuna.Trial], Settings]  # asks the trial for each of its settings
Objective = Callable[
    [optuna.Trial, Settings, Path], tuple[float, ...]
]  # its settings and a folder of its own to values


class Opened(NamedTuple):
    """A study, and where it is, in words that hold no password."""

    study: optuna.Study
    place: str


def open_study(name: str, directions: Sequence[Literal["minimize", "maximize"]], journal: Path) -> Opened:
    """A study by its name, made where there is none, in a journal or where NTULM_STUDIES says.

    Raises:
        UserError: it cannot be opened there.
    """
    place = os.environ.get(STUDIES) or str(journal)
    address = "://" in place
    shown = _without_password(place) if address else place
    try:
        storage = _database(place) if address else _journal(Path(place).expanduser())
        study = optuna.create_study(study_name=name, directions=directions, storage=storage, load_if_exists=True)
    except ImportError as error:
        hint = "for PostgreSQL: `pip install ntulm[postgresql]`, and postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        raise UserError(f"{STUDIES}: {shown}: no driver for that ({error.__cause__}); {hint}") from error
    except (OSError, ValueError, sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f"{shown}: no study can be kept there: {reason}; {STUDIES} names another place") from error
    return Opened(study, shown)


def _without_password(address: str) -> str:
    try:
        return sqlalchemy.make_url(address).render_as_string(hide_password=True)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return address.split("://")[0] + "://…"


def _journal(path: Path) -> BaseStorage:
    """Its lock is a symbolic link that only one can make, which holds on NFS too; it outlives a kill by 30 seconds."""
    if not path.parent.is_dir():  # a shared folder that is not mounted must not become one of this machine
        raise UserError(
            f"{path}: the folder {path.parent} not found; {STUDIES} names a journal in a folder that is there"
        )
    return JournalStorage(JournalFileBackend(str(path)))


def _database(address: str) -> BaseStorage:
    for attempt in range(1, ATTEMPTS + 1):
        try:  # a connection that was closed in the hours of a trial is opened again
            return RDBStorage(address, engine_kwargs={"pool_pre_ping": True})
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError, StorageInternalError):
            if attempt == ATTEMPTS:
                raise
            time.sleep(POLL * attempt)
    raise AssertionError


class Given(optuna.samplers.BaseSampler):
    """Gives a trial the settings that were drawn for it."""

    def __init__(self) -> None:
        self.settings: Mapping[str, Any] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Settings:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.settings[param_name]


class SharedStudy:
    """A study, and this process as one of those that work on it.

    Args:
        study: from `open_study`.
        folder: of this machine, for what trials need while they are made; removed with them.
        draw: the settings of a trial; never those of one before it.
        suggest: as an objective of Optuna asks for them.
    """

    def __init__(self, study: optuna.Study, folder: Path, draw: Draw, suggest: Suggest) -> None:
        self.study = study
        self.study.sampler = self._given = Given()
        self._folder = folder
        self._draw = draw
        self._suggest = suggest
        self._waits = "", math.inf  # what for, and when that is said
        self._signs: dict[int, tuple[Any, float]] = {}  # the last sign of life of others, and when it was first seen

    def work(self, count: int, objective: Objective) -> None:
        """Make trials until the study has `count` of them, and those of other workers are finished.

        Raises:
            Exception: what an objective raised, but for `TrialPruned`.
        """
        self._give_up_lost()
        remove_leftovers(self._folder)
        while len(held := self.trials(*HELD)) < count or any(trial.state == TrialState.RUNNING for trial in held):
            if len(held) < count:
                self._make(count, objective)
                self._give_up_lost()
            else:
                self.wait("the trials of other workers")

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Those in some states, in the order of their numbers."""
        return self.study.get_trials(deepcopy=False, states=states)

    def before(self, trial: optuna.Trial, *states: TrialState) -> list[FrozenTrial]:
        """Those that are older than a trial."""
        return [other for other in self.trials(*states) if other.number < trial.number]

    def wait(self, what: str) -> None:
        """A moment, for what another worker is to do; whoever is dead by then is no longer waited for."""
        now = time.monotonic()
        if what != self._waits[0]:
            self._waits = what, now + PATIENCE
        elif now > self._waits[1]:
            print(f"tune: waits for {what}", file=sys.stderr, flush=True)
            self._waits = what, math.inf
        time.sleep(POLL)
        self._give_up_lost()

    def _make(self, count: int, objective: Objective) -> None:
        trial = self.study.ask()
        with own_folder(self._folder) as folder, _signs_of_life(trial):
            try:
                trial.set_user_attr(WORKER, [socket.gethostname(), str(folder)])
                settings = self._take_turn(trial, count)
                if settings is None:
                    self._tell(trial, TrialState.FAIL)
                    return
                self._tell(trial, TrialState.COMPLETE, objective(trial, settings, folder))
            except optuna.TrialPruned:
                self._tell(trial, TrialState.PRUNED)
            except UpdateFinishedTrialError:
                _say_given_up(trial)
            except BaseException:
                self._tell(trial, TrialState.FAIL)
                raise

    def _take_turn(self, trial: optuna.Trial, count: int) -> Settings | None:
        """The settings of a trial, once all before it have theirs; None: there are enough before it."""
        while True:
            before = self.before(trial, *HELD)
            if all(DRAWN in other.user_attrs for other in before if other.state == TrialState.RUNNING):
                break
            self.wait(f"the settings of the trials before {trial.number}")
        if len(before) >= count:
            return None
        self._given.settings = self._draw(before, trial.number)
        settings = self._suggest(trial)
        trial.set_user_attr(DRAWN, True)
        return settings

    def _tell(self, trial: optuna.Trial, state: TrialState, values: tuple[float, ...] | None = None) -> None:
        """The study what became of a trial, unless it was given up meanwhile."""
        try:
            kept = self.study.tell(trial, values, state, skip_if_finished=True)
        except UpdateFinishedTrialError:
            _say_given_up(trial)
            return
        if kept.state != state:
            _say_given_up(trial)

    def _give_up_lost(self) -> None:
        """Trials of workers that died: another is made in their place."""
        for trial in self.trials(TrialState.RUNNING):
            if not self._lost(trial):
                continue
            with suppress(UpdateFinishedTrialError, ValueError):  # another worker has seen it as well
                told = self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                if told.state == TrialState.FAIL:
                    host = trial.user_attrs.get(WORKER, ["another machine"])[0]
                    what = f"trial {trial.number} on {host} was lost; another is made in its place"
                    print(f"tune: {what}", file=sys.stderr, flush=True)

    def _lost(self, trial: FrozenTrial) -> bool:
        """Judged by the clock of this process alone: other machines' may differ."""
        host, folder = trial.user_attrs.get(WORKER, (None, ""))
        if host == socket.gethostname() and abandoned(Path(folder)):
            return True
        sign, now = trial.user_attrs.get(ALIVE), time.monotonic()
        if trial.number not in self._signs or self._signs[trial.number][0] != sign:
            self._signs[trial.number] = sign, now
        return now - self._signs[trial.number][1] > SILENCE


def _say_given_up(trial: optuna.Trial) -> None:
    print(
        f"tune: trial {trial.number} does not count: it was silent for so long that another was made in its place",
        file=sys.stderr,
        flush=True,
    )


@contextmanager
def _signs_of_life(trial: optuna.Trial) -> Iterator[None]:
    """Tell other workers, while this one computes, that it does."""
    done = Event()

    def beat() -> None:
        sign = 0
        while not done.wait(BEAT):
            sign += 1
            try:
                trial.set_user_attr(ALIVE, sign)
            except UpdateFinishedTrialError:
                return
            except (OSError, StorageInternalError) as error:  # the next one may get through
                print(f"tune: trial {trial.number}: no sign of life: {error}", file=sys.stderr, flush=True)

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """A new folder that no other process takes for a leftover; removed in the end."""
    with guarded(parent):
        folder = Path(tempfile.mkdtemp(dir=parent)).absolute()
        lock = (folder / LOCK).open("xb")
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """One process at a time, of those that work in a folder of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def abandoned(folder: Path) -> bool:
    """Whether the process is dead that had an `own_folder`; False as well where nothing is left of that."""
    try:
        with (folder / LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_leftovers(parent: Path) -> None:
    """The folders of killed processes."""
    with guarded(parent):
        for folder in parent.iterdir():
            if folder.is_dir() and (abandoned(folder) or not (folder / LOCK).exists()):
                shutil.rmtree(folder, ignore_errors=True)
