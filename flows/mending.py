"""What a killed DVC leaves half-written is set aside, so that it does not bar every later run.

Reads `dvc.lock` and `.dvc/tmp/rwlock`; a damaged one is renamed to `….damaged`. Flows do so when they open a workspace;
for your own `dvc repro`, after a kill:

    python -m flows.mending
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from dvc.dvcfile import Lockfile
from dvc.lock import make_lock
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA
from dvc.utils.strictyaml import YAMLValidationError
from ruamel.yaml import YAML, YAMLError
from voluptuous import Invalid

LOCK_FILE = Path("dvc.lock")  # what the finished stages read and wrote
TEMPORARY = Path(".dvc/tmp")
WAIT_SECONDS = 1.0
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # what parsers raise beside their own

Log = Callable[[str], None]


def mend(root: Path, log: Log) -> None:
    """Set aside what is damaged.

    Args:
        root: of a DVC project.
        log: called with a line per file that was damaged.

    Raises:
        dvc.lock.LockError: another DVC process keeps the list of paths in use for itself, for seconds.
    """
    _mend_lock_file(root, log)
    _mend_paths_in_use(root, log)


def _mend_lock_file(root: Path, log: Log) -> None:
    """DVC writes `dvc.lock` in place.

    Nothing is lost: what a missing `dvc.lock` would say of finished stages, DVC finds in its run cache.
    """
    path = root / LOCK_FILE
    if _is_whole(path):
        return
    time.sleep(WAIT_SECONDS)  # somebody's own DVC may be writing it at this moment
    if not _is_whole(path):
        path.replace(root / "dvc.lock.damaged")
        log("dvc.lock was half-written by a killed run: now dvc.lock.damaged; finished stages do not run again")


def _is_whole(path: Path) -> bool:
    """Whether a `dvc.lock` is one that DVC takes; so is none at all."""
    try:
        Lockfile.validate(YAML(typ="safe", pure=True).load(path.read_bytes()))
    except FileNotFoundError:
        return True
    except (YAMLError, YAMLValidationError, *DAMAGED):
        return False
    return True


def _mend_paths_in_use(root: Path, log: Log) -> None:
    """DVC also writes the list of paths in use in place, under a lock of its own that a kill frees.

    Whoever holds that lock may write; so it is held here, and what is damaged then has no writer any more. A damaged
    list names nobody, and DVC itself drops killed processes from a whole one.
    """
    path = root / TEMPORARY / RWLOCK_FILE
    if _names_processes(path):
        return
    with make_lock(str(root / TEMPORARY / RWLOCK_LOCK), tmp_dir=str(root / TEMPORARY), wait=True):
        if not _names_processes(path):
            path.replace(path.with_name("rwlock.damaged"))
            log(f"{TEMPORARY / RWLOCK_FILE} was half-written by a killed run: now rwlock.damaged")


def _names_processes(path: Path) -> bool:
    """Whether a list of paths in use is one that DVC takes; so is none at all."""
    try:
        SCHEMA(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return True
    except (Invalid, *DAMAGED):
        return False
    return True


if __name__ == "__main__":
    mend(Path.cwd(), print)
