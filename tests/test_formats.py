"""Which format an export has, what is skipped, and exports that lie elsewhere."""

import gzip
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest

from ntulm.corpus.sources import formats, remote
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Detection
from ntulm.errors import UserError

TWEET = {"id_str": "1", "created_at": "Mon Jan 04 00:00:00 +0000 2016", "text": "a #b", "user": {"id": 1}}
LINE = json.dumps(TWEET).encode() + b"\n"


def detected(path: Path | str, wanted: str = "auto", spill: Path = Path("spill")) -> tuple[Detection, list[str]]:
    with formats.opened(path, spill) as export:
        return formats.detect(export, wanted), export.notes


def write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_alien_and_empty_files_are_named_and_skipped(tmp_path: Path) -> None:
    write(
        tmp_path, a=LINE, b=b"# Read me\n", c=b"", d=gzip.compress(b""), e=b"\x89PNG\0\0", f=b"id,text,user\n1,a,b\n",
        g=b"<html>", h=b'[5]', i=b'{"no": 1, "yes": 2}',
    )  # fmt: skip
    detection, notes = detected(tmp_path)
    assert (detection.format, detection.confidence) == ("twitter_v1", 1.0)
    assert [file.path.name for file in detection.files] == ["a"]
    assert [file.path.name for file in detection.alien] == ["b", "e", "f", "g", "h", "i"]
    assert [note.removeprefix(f"{tmp_path}/") for note in notes] == [
        "c: empty, not read", "d: empty, not read", "b: text without columns, not read",
        "e: no text (begins with the bytes 89 50 4e 47), not read", "f: looks like table, not read",
        "g: markup, not read",
        "h: JSON without objects, or damaged, not read", "i: looks like table, not read",
    ]  # fmt: skip


def test_of_many_alien_files_the_first_are_named(tmp_path: Path) -> None:
    write(tmp_path, a=LINE * 99, **{f"n{number:02}": b"text\n" for number in range(25)})
    _, notes = detected(tmp_path)
    assert len(notes) == 11
    assert notes[-1] == "15 more files that are not read"
    with formats.opened(tmp_path, tmp_path / "spill") as export:
        formats.detect(export)
        formats.detect(export)
    assert len(export.notes) == 11


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b'{"k\\u001b[2J": {"secret": 1}, "b": 2}', r"JSON objects with k\\x1b\[2J, b"),
        (json.dumps({f"key{number}": 1 for number in range(99)}).encode(), "JSON objects with key0, .*key11, …"),
        (b"a secret line\n", "text without columns"),
        (b"\x89PNG\r\n\x1a\n\0", "no text"),
    ],
)
def test_where_nothing_is_recognised_it_says_what_is_seen(
    tmp_path: Path, data: bytes, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "FORMATS", ("twitter_v1", "synthetic"))
    write(tmp_path, a=data)
    with pytest.raises(UserError, match=f"a: format not recognised: {seen}") as error:
        detected(tmp_path)
    assert "secret" not in str(error.value)


def test_a_format_that_is_wanted_takes_what_looks_so_or_else_all(tmp_path: Path) -> None:
    write(tmp_path, a=LINE, b=b"text\n", c=b"id,text\n1,a\n")
    assert [file.path.name for file in detected(tmp_path, "twitter_v1")[0].files] == ["a"]
    assert [file.path.name for file in detected(tmp_path, "table")[0].files] == ["a", "c"]
    detection, notes = detected(tmp_path, "synthetic")
    assert [file.path.name for file in detection.files] == ["a", "b", "c"]
    assert notes == []


def test_a_first_record_without_the_usual_keys_does_not_mislead(tmp_path: Path) -> None:
    strange = [{"delete": {"status": {"id": 1}}}, {"id": 5}, [], "a", None, TWEET]
    write(tmp_path, lines=b"\n".join(json.dumps(one).encode() for one in strange), array=json.dumps(strange).encode())
    assert detected(tmp_path / "lines")[0].format == "twitter_v1"
    assert detected(tmp_path / "array")[0].format == "twitter_v1"


def test_very_many_files_are_looked_at_shortly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MANY_FILES", 1)
    read: list[int] = []
    raw_head = formats.raw_head

    def counted(file: File, size: int) -> bytes:
        read.append(size)
        return raw_head(file, size)

    monkeypatch.setattr(formats, "raw_head", counted)
    late = json.dumps({"limit": "x" * 100}).encode() + b"\n"
    write(tmp_path, a=LINE, b=LINE * 1000, c=b"[" + b",".join([LINE] * 100) + b"]", d=late * 150 + LINE)
    monkeypatch.setattr(formats, "FORMATS", ("twitter_v1",))
    assert len(detected(tmp_path)[0].files) == 4
    assert read == [1 << 16, 1 << 13, 1 << 13, 1 << 13, 1 << 16]


# elsewhere


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def test_an_address_is_fetched(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe(
        {"/export/b/2.jsonl": LINE, "/export/1.json": b"[" + LINE + b"]", "/export/.hidden": b"x", "/other": b"x"}
    )
    spill = tmp_path / "spill"
    with formats.opened("memory://export", spill) as export:
        detection = formats.detect(export)
        rows = [row for batch in formats.read(detection, None) for row in batch.to_pylist()]
    assert [row["file"] for row in rows] == ["memory://export/1.json", "memory://export/b/2.jsonl"]
    assert not spill.exists()
    with formats.opened(Path("memory://export/1.json"), spill) as export:
        assert [file.name for file in export.files] == ["memory://export/1.json"]
    for missing in ("memory://none", "memory://export/none"):
        with pytest.raises(UserError, match=f"{missing}: no"):
            detected(missing, spill=spill)
    assert not spill.exists()


def test_an_address_of_the_web(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    write(tmp_path / "web", export=gzip.compress(LINE))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        detection, _ = detected(f"{url}/export?signature=secret", spill=tmp_path / "spill")
        assert (detection.format, detection.files[0].name) == ("twitter_v1", f"{url}/export")
        with pytest.raises(UserError, match=f"{url}/none: not found"):
            detected(f"{url}/none?signature=secret", spill=tmp_path / "spill")
        server.shutdown()
    with pytest.raises(UserError, match=f"{url}/export: cannot be fetched") as error:
        detected(f"{url}/export?signature=secret", spill=tmp_path / "spill")
    assert "secret" not in str(error.value)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    for url, package in (("s3://bucket/export", "s3fs"), ("gs://bucket/export", "gcsfs")):
        with pytest.raises(UserError, match=f"needs the package {package}; `pip install {package}`"):
            detected(url, spill=tmp_path / "spill")
    with pytest.raises(UserError, match="cannot be opened"):
        detected("nowhere://bucket", spill=tmp_path / "spill")


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://a/b", "s3://a/b"), (Path("s3://a/b"), "s3://a/b"), ("S3:/a", "s3://a"), ("a/b", None), ("C:/a", None),
        ("C:\\a", None), ("/a:/b", None), ("https://a/b?c", "https://a/b?c"),
    ],
)  # fmt: skip
def test_addresses(path: str | Path, url: str | None) -> None:
    assert remote.address(path) == url


def test_passwords_are_not_shown() -> None:
    assert remote.shown_address("https://me:secret@host/a?token=secret#secret") == "https://host/a"
