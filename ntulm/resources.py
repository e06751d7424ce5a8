"""What the machine gives: memory, as a container or a job limits it, and room on the disk; its faults in one line each.

Library only; needs the standard library alone. No result depends on it.
"""

import errno
import os
import re
import resource
import shutil
from pathlib import Path

from ntulm.errors import UserError

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
LIMITS = ("memory.max", "memory.limit_in_bytes")  # of version 2, of version 1
NO_LIMIT = 1 << 60  # version 1 writes a number about as large as this where there is none
SHARE = 0.4  # of the memory for DuckDB; Python, Arrow and what the kernel keeps of files need the rest
LEAST_MEGABYTES = 128  # DuckDB needs some
MEGABYTE, GIGABYTE = 10**6, 10**9  # as DuckDB writes MB and GB
UNITS = {"MB": MEGABYTE, "GB": GIGABYTE}
UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL)  # some file systems reserve no room
SAID = {  # what is wrong, and the words that libraries have for it
    errno.ENOSPC: ("no space is left on the disk", r"No space left on device|StorageFull"),
    errno.EDQUOT: ("the quota of the disk is used up", r"Disk quota exceeded"),
    errno.EFBIG: ("the file is larger than this process may write", r"File too large"),
    errno.EROFS: ("the file system is read-only", r"Read-only file system|ReadOnlyFilesystem"),
    errno.EACCES: ("this user may not read or write it", r"Permission denied"),
    errno.EPERM: ("this user may not read or write it", r"Operation not permitted"),
    errno.EMFILE: ("too many files are open; raise the limit, `ulimit -n`", r"Too many open files"),
    errno.ENOMEM: ("", r"[Cc]annot allocate memory|can't allocate memory|failed to map segment|[Oo]ut of [Mm]emory"),
}
LONGEST = 200  # characters of a library's own words


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int | None:
    """Bytes that this process may use: the least of what machine, container and process limit; None where unknown."""
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    found = [limit for limit in (soft, *_cgroup_limits(), _installed()) if limit is not None and 0 < limit < NO_LIMIT]
    return min(found, default=None)


def duckdb_memory(most: str) -> str:
    """The memory that DuckDB gets before it spills to the disk: `most`, or a share of what there is if that is less.

    Args:
        most: such as `2GB` or `500MB`.
    """
    there = memory()
    if there is None:
        return most
    share = max(int(there * SHARE) // MEGABYTE, LEAST_MEGABYTES)
    return most if float(most[:-2]) * UNITS[most[-2:]] <= share * MEGABYTE else f"{share}MB"


def require_addresses(size: int, what: str) -> None:
    """Refuse to begin under a limit of the address space in which a library ends the process without a word.

    Args:
        size: in bytes.
        what: needs it.

    Raises:
        UserError: the limit, `ulimit -v`, is lower.
    """
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= soft < size:
        raise UserError(
            f"the address space is limited to {_readable(soft)} (`ulimit -v`), {what} needs {_readable(size)}; "
            "limit the memory of a container instead, which is kept to"
        )


def require_space(folder: Path, size: int, what: str) -> None:
    """Refuse to begin what does not fit the disk.

    Args:
        folder: where it is written.
        size: in bytes.
        what: is written.

    Raises:
        UserError: less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(f"{folder}: {what} needs {_readable(size)} on the disk, {_readable(free)} are free")


def reserve(path: Path, size: int) -> None:
    """Make a file `size` bytes long, zeros at its end, with room on the disk that is its own.

    What is written to a mapped file that has no room ends the process with a signal and without a word.

    Raises:
        OSError: there is no room.
        UserError: there is no room, and the file system reserves none.
    """
    with path.open("r+b") as file:
        missing = size - file.seek(0, os.SEEK_END)
        if missing > 0 and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise OSError(error.errno, error.strerror, str(path)) from error
        require_space(path.parent, missing, path.name)
        file.truncate(size)


def told(error: BaseException) -> str | None:
    """A fault of the machine in one line: what and where; None where the error is another one."""
    number = _number_of(error)
    if number is None:
        return None
    if number == errno.ENOMEM:
        there = memory()
        of = f" of {_readable(there)}" if there else ""
        return f"the memory{of} does not suffice{_words(error)}"
    place = getattr(error, "filename", None)
    where = f"{place}: " if place else ""
    return f"{where}{SAID[number][0]}; what was there before is as it was{'' if place else _words(error)}"


def _number_of(error: BaseException) -> int | None:
    """Which fault of the machine an error is; libraries tell by number, by class or in words."""
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryException", "OutOfMemoryError"):
        return errno.ENOSPC if re.search("max_temp_directory_size|offload", str(error)) else errno.ENOMEM
    if isinstance(error, OSError) and error.errno in SAID:
        return error.errno
    if isinstance(error, UserError) or not isinstance(error, Exception):
        return None
    words = str(error)
    return next((number for number, (_, pattern) in SAID.items() if re.search(pattern, words)), None)


def _words(error: BaseException) -> str:
    """The first line of an error, as an addition."""
    first = next(iter(str(error).strip().splitlines()), "")[:LONGEST]
    return f" ({first})" if first else ""


def _cgroup_limits() -> list[int]:
    """What the control groups of this process allow, those around them included."""
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        root = CGROUPS / "memory" if "memory" in controllers.split(",") else CGROUPS
        folders = [root / own.strip("/"), *(root / own.strip("/")).parents]
        limits += [
            limit for folder in folders if folder.is_relative_to(root) for limit in map(_limit, _files(folder)) if limit
        ]
    return limits


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in LIMITS]


def _limit(path: Path) -> int | None:
    """The number in a file; None where there is none, or the word `max`."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _installed() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not everywhere
        return None


def _readable(size: int) -> str:
    if size >= GIGABYTE:
        return f"{size / GIGABYTE:.1f} GB"
    return f"{size / MEGABYTE:.0f} MB" if size >= 10 * MEGABYTE else f"{size / 1000:.0f} kB"
