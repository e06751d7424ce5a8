"""Exports in an S3-compatible store: what is read there is what is read here, and what cannot be read is one line."""

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from s3_store import BUCKET, CREDENTIALS, Connection, Store, breakable, s3_store

from ntulm.errors import UserError
from ntulm.inspect.inspection import inspect


def tweet(number: int, **changes: object) -> str:
    own = {"id_str": str(number), "created_at": "Mon Jan 04 00:00:00 +0000 2016", "user": {"id": number % 7}}
    return json.dumps({**own, "text": f"tea {number} #tea{number % 3}", **changes}) + "\n"


def lines(first: int, last: int) -> bytes:
    return "".join(map(tweet, range(first, last))).encode()


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in/part.jsonl", content)
    return packed.getvalue()


# Three pages of a listing are not worth their time; an odd record, a file of another kind and a hidden one are.
EXPORT = {
    "a.jsonl": lines(0, 50) + tweet(51, user=None).encode(),
    "b/c.jsonl.gz": gzip.compress(lines(40, 90)),
    "b/d.zip": zipped(lines(90, 120)),
    "e.csv": b"id,text,user\n1,a,b\n",
    "f.txt": b"",
    ".hidden/g.jsonl": lines(200, 300),
}


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with s3_store() as running:
        for name, content in EXPORT.items():
            running.put(f"exports/one/{name}", content)
        yield running


@pytest.fixture
def at(store, monkeypatch) -> Iterator[Callable[[str], None]]:
    """Lets `s3://` be a store at an address, with credentials; fsspec keeps what it opened once."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    forget = fsspec.get_filesystem_class("s3").clear_instance_cache

    def go(endpoint: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        forget()

    go(store.endpoint)
    yield go
    forget()


@pytest.fixture
def connection(store) -> Iterator[Connection]:
    with breakable(store) as way:
        yield way


def here(folder: Path) -> Path:
    for name, content in EXPORT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_export_in_a_bucket_is_read_as_the_same_folder_here(at, tmp_path, slash):
    local, url = inspect(here(tmp_path)), f"s3://{BUCKET}/exports/one"
    found = inspect(f"{url}{slash}")
    assert found.counts == local.counts
    assert (found.counts["posts"], found.counts["duplicates"], found.counts["rejects"]) == (120, 10, 1)
    assert found.files == tuple(name.replace(str(tmp_path), url) for name in local.files)
    assert [note.replace(url, "") for note in found.notes] == [note.replace(str(tmp_path), "") for note in local.notes]
    assert found.sample == local.sample


def test_the_command_line_reads_one_file_and_says_in_one_line_what_it_cannot_read(at, store):
    def told(url: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ntulm", "inspect", url]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)

    done = told(f"s3://{BUCKET}/exports/one/a.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert "records: 51" in done.stdout
    refused = told("s3://nowhere/exports")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: s3://nowhere/exports: cannot be fetched (NoSuchBucket: ")
    assert refused.stderr.count("\n") == 1


def test_a_folder_that_is_not_there_is_named(at):
    with pytest.raises(UserError, match=f"^s3://{BUCKET}/none: no files there; .+$"):
        inspect(f"s3://{BUCKET}/none")


def test_missing_credentials_are_named(at, store, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "none").touch()
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    at(store.endpoint)
    with pytest.raises(UserError, match=r"^s3://.+: cannot be fetched \(.*[Cc]redentials.*\)$"):
        inspect(f"s3://{BUCKET}/exports/one")


def test_a_connection_that_breaks_is_one_line_and_no_half_export(at, connection):
    at(connection.endpoint)
    connection.break_after(received=9_000)
    with pytest.raises(UserError, match=rf"^s3://{BUCKET}/exports/one: cannot be fetched \(.+\)$"):
        inspect(f"s3://{BUCKET}/exports/one")
    assert connection.broken
    connection.mend()
    assert inspect(f"s3://{BUCKET}/exports/one").counts["posts"] == 120
