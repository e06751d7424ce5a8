"""What the machine gives, and its faults in one line: limits of made-up control groups, disks without room."""

import errno
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import duckdb
import numpy as np
import pytest

from ntulm import resources, tensors
from ntulm.errors import UserError
from ntulm.resources import duckdb_memory, memory, require_space, reserve, told

GB = 10**9
ROOT = Path(__file__).parent.parent


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Write the files of control groups: what /proc/self/cgroup says, and a limit per path."""

    def write(own, limits):
        (tmp_path / "own").write_text(own)
        for name, limit in limits.items():
            (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroup" / name).write_text(f"{limit}\n")

    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(resources, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(resources, "_installed", lambda: 64 * GB)
    return write


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": 3 * GB}, 3 * GB),  # version 2, inside a container
        ("0::/a/b\n", {"a/memory.max": 2 * GB, "a/b/memory.max": "max"}, 2 * GB),  # the limit of a group around it
        ("0::/a/b\n", {"a/memory.max": 4 * GB, "a/b/memory.max": 1 * GB}, 1 * GB),
        ("5:cpu,memory:/docker/x\n1:name=systemd:/\n", {"memory/memory.limit_in_bytes": 3 * GB}, 3 * GB),  # version 1
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": 9223372036854771712}, 64 * GB),  # how that writes: none
        ("0::/gone\n", {}, 64 * GB),
        ("0::/\n", {"memory.max": "broken"}, 64 * GB),
    ],
)
def test_the_least_limit_counts(cgroup, own, limits, expected):
    cgroup(own, limits)
    assert memory() == expected


def test_without_control_groups_the_machine_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "OWN_CGROUPS", tmp_path / "none")
    monkeypatch.setattr(resources, "_installed", lambda: 3 * GB)
    monkeypatch.setattr(resources.resource, "getrlimit", lambda which: (resources.resource.RLIM_INFINITY,) * 2)
    assert memory() == 3 * GB
    monkeypatch.setattr(resources, "_installed", lambda: None)
    assert memory() is None
    assert duckdb_memory("2GB") == "2GB"


@pytest.mark.parametrize(
    ("limit", "most", "expected"),
    [
        (64 * GB, "2GB", "2GB"),
        (2 * GB, "2GB", "800MB"),
        (2 * GB, "500MB", "500MB"),
        (100_000_000, "2GB", "128MB"),
        (8 * GB, "1.5GB", "1.5GB"),
        (8 * GB, "64GB", "3200MB"),
    ],
)
def test_duckdb_gets_a_share_of_what_there_is_and_no_more_than_is_set(cgroup, limit, most, expected):
    cgroup("0::/\n", {"memory.max": limit})
    assert duckdb_memory(most) == expected
    duckdb.connect(config={"memory_limit": expected}).close()


def test_a_file_for_mapping_has_room_of_its_own(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"head")
    reserve(path, 1_000_000)
    assert path.stat().st_size == 1_000_000
    assert path.stat().st_blocks * 512 >= 1_000_000
    assert path.read_bytes() == b"head" + bytes(999_996)
    reserve(path, 1_000_000)
    assert path.stat().st_size == 1_000_000


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_vectors_that_do_not_fit_the_disk_are_an_error_before_anything_is_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", full_disk)
    with (
        pytest.raises(OSError, match="No space left") as error,
        tensors.open_tensors(tmp_path / "x.safetensors", {"vectors": (1000, 10)}, np.dtype(np.float32)),
    ):
        pass
    line = told(error.value)
    assert line is not None
    assert line.startswith(f"{tmp_path}/x.safetensors: no space is left on the disk")


def test_a_file_system_that_reserves_nothing_is_asked_for_its_free_space(tmp_path, monkeypatch):
    def unsupported(*arguments):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    (tmp_path / "file").write_bytes(b"")
    reserve(tmp_path / "file", 100)
    assert (tmp_path / "file").stat().st_size == 100
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: usage(GB, GB, 5_000_000))
    with pytest.raises(UserError, match=r"file needs 20 MB on the disk, 5000 kB are free"):
        reserve(tmp_path / "file", 20_000_000)
    with pytest.raises(UserError, match=r"the list of edges needs 2.0 GB on the disk, 5000 kB are free"):
        require_space(tmp_path, 2 * GB, "the list of edges")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "data/x"), "data/x: no space is left on the disk"),
        (OSError(errno.EROFS, "Read-only file system", "data"), "data: the file system is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "posts.csv"), "posts.csv: this user may not read or write"),
        (OSError("Can't write data (errno = 28, error message = 'No space left on device')"), "no space is left"),
        (RuntimeError("IoError(Os { code: 28, kind: StorageFull })"), "no space is left on the disk"),
        (MemoryError(), "the memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "the memory"),
        (duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block"), "the memory"),
        (duckdb.OutOfMemoryException("failed to offload data block: max_temp_directory_size"), "no space is left"),
        (ValueError("x must be positive"), None),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), None),
        (UserError("posts.csv: Permission denied"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_fault_of_the_machine_is_one_line_and_others_are_left_alone(error, expected):
    line = told(error)
    assert (line is None) == (expected is None)
    assert line is None or expected in line
    assert line is None or "\n" not in line


FAULTS = {
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
    "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    "error = lambda: open('x', 'wb', 0).write(bytes(5000)) and open('x', 'ab', 0).write(bytes(5000))": "larger than",
    "error = lambda: open('/dev/full', 'wb', 0).write(b'x')": "no space is left on the disk",
    "error = lambda: bytearray(1 << 60)": "the memory",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_command_line_says_it_in_one_line(fault, tmp_path):
    code = f"import ntulm.cli as cli; {fault}; cli.app = error; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert FAULTS[fault] in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("command", "torch"), [("encode", True), ("params", False)])
def test_an_address_space_in_which_torch_cannot_be_loaded_is_told(command, torch, tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (600_000_000, -1));"
        f"sys.argv = ['ntulm', '{command}']; import ntulm.cli as cli; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert ("the address space is limited to 600 MB (`ulimit -v`), torch needs 1.1 GB" in done.stderr) == torch
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
