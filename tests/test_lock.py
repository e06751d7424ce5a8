"""The lock with hashes: what stands in it, and that pip takes it, and refuses another file of the same version."""

import subprocess
import sys
import zipfile
from hashlib import sha256

import pytest

from deploy.lock import locked

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


def item(name, version, hashes):
    return {"metadata": {"name": name, "version": version}, "download_info": {"archive_info": {"hashes": hashes}}}


def wheel(folder, name, content=""):
    """A package of one module, and the hash of its file."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", content)
        archive.writestr(f"{about}/METADATA", METADATA.format(name=name))
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return sha256(path.read_bytes()).hexdigest()


def install(folder, lock, target):
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", folder, "--require-hashes"]
    return subprocess.run(
        [*command, "--requirement", lock, "--target", target, "--disable-pip-version-check"],
        capture_output=True,
        text=True,
    )


def test_each_package_stands_there_once_with_its_hash_and_ours_does_not():
    report = {
        "install": [
            item("Zed_b", "2.0", {"sha256": "b" * 64}),
            {"metadata": {"name": "ntulm", "version": "1.0"}, "download_info": {"dir_info": {"editable": True}}},
            item("a", "1.0+cpu", {"sha256": "a" * 64}),
        ]
    }
    assert locked(report).splitlines()[1:] == [
        f"a==1.0+cpu --hash=sha256:{'a' * 64}",
        f"zed-b==2.0 --hash=sha256:{'b' * 64}",
    ]


def test_a_package_without_a_hash_is_refused():
    with pytest.raises(ValueError, match=r"a 1\.0: it was not installed from a file"):
        locked({"install": [item("a", "1.0", {})]})


def test_pip_takes_the_locked_file_and_refuses_another_one(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(locked({"install": [item("somepackage", "1.0", {"sha256": wheel(tmp_path, "somepackage")})]}))
    done = install(tmp_path, lock, tmp_path / "taken")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "taken/somepackage.py").is_file()
    wheel(tmp_path, "somepackage", "planted = True\n")
    done = install(tmp_path, lock, tmp_path / "refused")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "refused").exists()
