"""What a killed DVC leaves half-written is set aside, so that it does not bar every later run; nothing is half fetched.

Reads `dvc.lock` and `.dvc/tmp/rwlock`; a damaged one is renamed to `….damaged`. Sets `verify` of each DVC remote in
`.dvc/config.local`. Flows do so when they open a workspace; for your own `dvc repro`, after a kill:

    python -m flows.mending
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from dvc.config import Config, ConfigError
from dvc.dvcfile import Lockfile
from dvc.lock import make_lock
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA
from dvc.utils.strictyaml import YAMLValidationError
from ruamel.yaml import YAML, YAMLError
from voluptuous import Invalid

from flows.failure import CommandError

LOCK_FILE = Path("dvc.lock")  # what the finished stages read and wrote
TEMPORARY = Path(".dvc/tmp")
WAIT_SECONDS = 1.0
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # what parsers raise beside their own

Log = Callable[[str], None]


def mend(root: Path, log: Log) -> None:
    """Set aside what is damaged, and let DVC compare what it fetches with its hash.

    Args:
        root: of a DVC project.
        log: called with a line per file that was damaged, and per remote that was told to compare.

    Raises:
        CommandError: DVC does not accept its own settings.
        dvc.lock.LockError: another DVC process keeps the list of paths in use for itself, for seconds.
    """
    _mend_lock_file(root, log)
    _mend_paths_in_use(root, log)
    _verify_what_is_fetched(root, log)


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


def _verify_what_is_fetched(root: Path, log: Log) -> None:
    """Set `verify` of each remote, where nobody decided on it.

    Without it, DVC 3.67 may keep a file whose connection broke under the name of the whole one (the second, where two
    files of a folder are left to fetch), takes it for that ever after, and says that all is up to date.
    """
    try:
        config = Config(str(root / ".dvc"))
        levels = [config.load_one(level)["remote"] for level in Config.LEVELS]
        decided = {name for remotes in levels for name, options in remotes.items() if "verify" in options}
        if left := sorted({name for remotes in levels for name in remotes} - decided):
            with config.edit("local") as local:
                for name in left:
                    local["remote"].setdefault(name, {})["verify"] = True
            log(f"remote {', '.join(left)}: what is fetched is compared with its hash (`verify`, .dvc/config.local)")
    except ConfigError as error:
        raise CommandError(f".dvc/config: {' '.join(str(error).split())}") from error


if __name__ == "__main__":
    try:
        mend(Path.cwd(), print)
    except CommandError as error:
        raise SystemExit(f"error: {error}") from None
