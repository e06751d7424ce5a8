"""Archives as folders."""

import gzip
import io
import json
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ntulm.corpus.sources import archives, formats
from ntulm.corpus.sources.export import File
from ntulm.errors import UserError

TWEET = {"id_str": "1", "created_at": "Mon Jan 04 00:00:00 +0000 2016", "text": "a #b", "user": {"id": 1}}
LINE = json.dumps(TWEET).encode() + b"\n"
Members = dict[str, bytes]


def zipped(members: Members) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target.getvalue()


def tarred(members: Members, **fields: Any) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in fields.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


ARCHIVES = {
    "zip": zipped, "tar": tarred, "tar.gz": lambda members: gzip.compress(tarred(members)),
    "tar.zst": lambda members: zstandard.compress(tarred(members)),
}  # fmt: skip


def names(path: Path) -> tuple[list[str], list[str]]:
    """The names of the files in an archive, below it, and the notes."""
    spill = path.parent / "spill"
    with formats.opened(path, spill) as export:
        assert all(file.path.is_file() for file in export.files)
        found = [str(file).removeprefix(f"{path}/") for file in export.files]
    assert not spill.exists()
    return found, [note.removeprefix(f"{path}: ") for note in export.notes]


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_is_a_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "export"  # told by content
    path.write_bytes(ARCHIVES[kind]({"b/2.jsonl": LINE, "a/1.json": b"[" + LINE + b"]", "c.gz": gzip.compress(LINE)}))
    with formats.opened(path, tmp_path / "spill") as export:
        detection = formats.detect(export)
        rows = [row for batch in formats.read(detection, None) for row in batch.to_pylist()]
    assert detection.format == "twitter_v1"
    assert [(row["file"], row["line"], row["post_id"]) for row in rows] == [
        (f"{path}/{name}", 1, "1") for name in ("a/1.json", "b/2.jsonl", "c.gz")
    ]
    assert not (tmp_path / "spill").exists()


@pytest.mark.parametrize("kind", ARCHIVES)
def test_what_is_not_opened_is_counted(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "export"
    members = {
        "data/tweets.js": LINE, "data/direct-messages.js": LINE, "data/direct-messages-group.js": LINE,
        "data/deleted-tweets.js": LINE, "media/1.jpg": b"x", "media/2.JPG": b"x", "media/3.mp4": b"x",
        "../../up.json": LINE, "/absolute.json": LINE, "C:\\windows.json": LINE, "a/../../up.json": LINE,
        "__MACOSX/a.json": LINE, ".hidden.json": LINE, "data/plain": LINE,
    }  # fmt: skip
    path.write_bytes(ARCHIVES[kind](members))
    found, (note,) = names(path)
    assert found == ["data/plain", "data/tweets.js"]
    assert note == (
        "not opened: 4 with a name that leads out of the archive, 3 with direct messages or deleted posts, "
        "2 .jpg files, 1 .mp4 files"
    )
    assert sorted(one.name for one in tmp_path.iterdir()) == ["export"]


def test_direct_messages_in_a_folder_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("tweets.js", "direct-messages.js", "direct-message-headers.js"):
        (tmp_path / "data" / name).write_bytes(LINE)
    with formats.opened(tmp_path / "data", tmp_path / "spill") as export:
        assert [file.path.name for file in export.files] == ["tweets.js"]
    assert export.notes == ["not opened: 2 files with direct messages or deleted posts"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_not_extracted(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        link = tarfile.TarInfo("secret.json")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
        member = tarfile.TarInfo("b.json")
        member.size = len(LINE)
        archive.addfile(member, io.BytesIO(LINE))
    path.write_bytes(target.getvalue())
    assert names(path) == (["b.json"], ["not opened: 1 links and devices"])


def test_a_link_in_a_zip_file_is_not_extracted(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("b.json", LINE)
    assert names(tmp_path / "a.zip") == (["b.json"], ["not opened: 1 links and devices"])


def test_archives_in_archives_are_opened_once(tmp_path: Path) -> None:
    inner = ARCHIVES["tar.gz"]({"deep.json": LINE, "deeper.zip": zipped({"x.json": LINE})})
    (tmp_path / "a.zip").write_bytes(zipped({"inner.tar.gz": inner, "b.json": LINE}))
    found, notes = names(tmp_path / "a.zip")
    assert found == ["b.json", "inner.tar.gz/deep.json"]
    assert notes == [f"{tmp_path}/a.zip/inner.tar.gz: not opened: 1 archives in archives in archives"]


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_without_data_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(ARCHIVES[kind]({"a.jpg": b"x"}))
    with pytest.raises(UserError, match=r"a: nothing to read: .*: not opened: 1 \.jpg files"):
        names(path)
    path.write_bytes(zipped({}))
    with pytest.raises(UserError, match="an archive without files"):
        names(path)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_cut_archive_is_one_line_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    data = ARCHIVES[kind]({f"{number}.json": bytes(str(number * 7919), "ascii") * 700 for number in range(9)})
    for end in (len(data) * 2 // 3, len(data) - 1 if kind != "tar" else 6 * 512, len(data) // 3):
        path.write_bytes(data[:end])
        with pytest.raises(UserError, match=r"a(:\d+)?: (damaged or cut off archive|compressed file damaged)"):
            names(path)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["a"]


def test_a_damaged_header_in_the_middle_does_not_end_the_archive(tmp_path: Path) -> None:
    data = bytearray(tarred({"a.json": LINE, "b.json": LINE, "c.json": LINE}))
    data[1024 + 150] ^= 0xFF  # the checksum of the second header
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match="damaged or cut off archive"):
        names(tmp_path / "a.tar")


def test_an_encrypted_zip_file_is_one_line(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.json": LINE}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.zip: encrypted; unpack it yourself with its password"):
        names(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_bomb_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(ARCHIVES[kind]({"a.json": bytes(40 << 20), "b.json": bytes(40 << 20)}))
    if kind == "tar":
        assert names(path)[0] == ["a.json", "b.json"]
        return
    with pytest.raises(UserError, match=r"a: unpacks to more than 200 times its size"):
        names(path)
    assert not (tmp_path / "spill").exists()


def test_limits_name_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({f"{number}.json": LINE for number in range(9)}))
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MAX_DATA_MEMBERS", 5)
        with pytest.raises(UserError, match="more than 5 data files"):
            names(tmp_path / "a.zip")
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MAX_MEMBERS", 5)
        with pytest.raises(UserError, match="more than 5 files"):
            names(tmp_path / "a.zip")
    with monkeypatch.context() as patch:
        patch.setattr(archives, "SPARE_BYTES", 1 << 60)
        with pytest.raises(UserError, match="no space left"):
            names(tmp_path / "a.zip")


def test_a_large_header_of_a_tar_file_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(UserError, match="a header of more than 1 MB"):
        names(tmp_path / "a.tar")


@settings(max_examples=60, deadline=None)
@example("zip", [(1415, 1)])
@given(st.sampled_from(sorted(ARCHIVES)), st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 255)), max_size=4))
def test_any_damage_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(ARCHIVES[kind]({"a.json": LINE, "b.csv": b"a,b\n"}))
    for place, value in changes:
        data[place % len(data)] = value
    folder = tmp_path_factory.mktemp("archive")
    (folder / "a").write_bytes(data)
    try:
        with formats.opened(folder / "a", folder / "spill") as export:
            assert export.files
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert sorted(one.name for one in folder.iterdir()) == ["a"]


def test_kinds_are_told_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"a,b\n1,2\n")
    assert archives.kind(File.of(tmp_path / "a.zip")) is None
    (tmp_path / "b.csv").write_bytes(zipped({"a.json": LINE}))
    assert archives.kind(File.of(tmp_path / "b.csv")) == "zip"
    (tmp_path / "c").write_bytes(gzip.compress(zipped({"a.json": LINE})))
    with pytest.raises(UserError, match="packed again"):
        names(tmp_path / "c")
