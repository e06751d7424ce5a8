"""The content of files: what they are packed with, bombs, encodings."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import exports
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ntulm.corpus.sources import content, formats
from ntulm.corpus.sources.content import HEAD_BYTES
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.lines import line_tables, record_tables
from ntulm.errors import UserError
from ntulm.printable import printable

PACKS: dict[str, Any] = {"gzip": gzip.compress, "zstd": zstandard.compress, "bzip2": bz2.compress, "xz": lzma.compress}
TWEET = {"id_str": "1", "created_at": "Mon Jan 04 00:00:00 +0000 2016", "text": "a #b", "user": {"id": 1}}


def whole(path: Path, encoding: str | None = None) -> bytes:
    return b"".join(content.decompressed(File(path, str(path), encoding)))


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("size", [1, 100, content.READ_BYTES, 3 * content.READ_BYTES])
def test_packed_content_comes_back(tmp_path: Path, pack: str, size: int) -> None:
    data = bytes(byte % 251 for byte in range(1000)) * (size // 1000 + 1)
    path = tmp_path / "a"
    path.write_bytes(PACKS[pack](data[:size]) + PACKS[pack](b"") + b"\0" * 512 + PACKS[pack](b"end"))
    assert whole(path) == data[:size] + b"end"
    assert content.head(File.of(path), 10) == (data[:size] + b"end")[:10]


@pytest.mark.parametrize("pack", PACKS)
def test_a_cut_or_damaged_file_is_an_error_with_its_line(tmp_path: Path, pack: str) -> None:
    data = b"".join(b"%d\n" % (number * 7919) for number in range(20_000))
    packed = PACKS[pack](data)
    path = tmp_path / "a"
    for cut in (packed[:-20], packed[:-1], packed[: len(packed) // 2], packed + b"rubbish"):
        path.write_bytes(cut)
        with pytest.raises(UserError, match=r"a:\d+: compressed file damaged or cut off here"):
            whole(path)


@given(st.sampled_from(sorted(PACKS)), st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_any_damage_is_one_line(pack: str, data: bytes, place: int, value: int) -> None:
    packed = bytearray(PACKS[pack](data))
    packed[place % len(packed)] = value
    path = Path("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: __import__("io").BytesIO(bytes(packed)))
        try:
            assert isinstance(whole(path), bytes)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


BOUNDED = """
import resource, sys
from pathlib import Path
from typing import Any
from ntulm.corpus.sources import content, documents, formats
from ntulm.corpus.sources.export import File, opened
from ntulm.corpus.sources.lines import line_tables
from ntulm.errors import UserError
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (400 << 20),) * 2)
try:
    with opened(sys.argv[1], Path(sys.argv[2])) as export:
        detection = formats.detect(export, "twitter_v1")
        print("detected", detection.format)
        print(sum(len(table) for file in export.files for table in line_tables(file)))
except UserError as error:
    print("error:", error)
"""


def bounded(path: Path) -> list[str]:
    """What comes of reading a file in a process that may take 400 MB beyond what its imports take."""
    command = [sys.executable, "-c", BOUNDED, str(path), str(path.parent / "spill")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def bomb(pack: str, line: bytes, times: int) -> bytes:
    """The same line very often, packed, without ever being in memory."""
    fresh: dict[str, Any] = {
        "gzip": lambda: zlib.compressobj(9, wbits=31), "zstd": lambda: zstandard.ZstdCompressor(3).compressobj(),
        "bzip2": lambda: bz2.BZ2Compressor(1), "xz": lambda: lzma.LZMACompressor(preset=0),
    }  # fmt: skip
    compressor = fresh[pack]()
    block = line * (1 + (1 << 20) // len(line))
    packed = b"".join(compressor.compress(block) for _ in range(times))
    return packed + compressor.flush()


@pytest.mark.parametrize("pack", PACKS)
def test_a_bomb_is_told_in_one_line_and_in_bounded_memory(tmp_path: Path, pack: str) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb(pack, json.dumps(TWEET).encode() + b"\n", 1500 if pack == "zstd" else 150))
    assert path.stat().st_size < 1 << 20
    detected, error = bounded(path)
    assert detected == "detected twitter_v1"  # only as much is unpacked as tells it
    assert error.startswith(f"error: {path}: unpacks to more than 200 times its size; expected posts. If they are, ")


def test_a_bomb_without_a_line_break_does_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bomb("zstd", b"\0", 2000))
    assert "line of more than 16 MB" in bounded(tmp_path / "zeros")[-1]


def test_what_shrinks_much_but_is_small_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bomb("zstd", json.dumps(TWEET).encode() + b"\n", 8))
    detected, lines = bounded(path)
    assert detected == "detected twitter_v1"
    assert int(lines) > 50_000


# encodings


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-be"])
@pytest.mark.parametrize("pack", ["gzip", None])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str, pack: str | None) -> None:
    mark = "\ufeff" if encoding.endswith("e") else ""
    data = (mark + "".join(f"{number} schön 😀\n" for number in range(3))).encode(encoding)
    (tmp_path / "a").write_bytes(PACKS[pack](data) if pack else data)
    (table,) = line_tables(File.of(tmp_path / "a"))
    assert [line.strip() for line in table["content"].to_pylist()] == ["0 schön 😀", "1 schön 😀", "2 schön 😀"]


TEXTS = {
    "cp1252": ["Das ist schön – „ja“, müde Grüße", "L’été à la plage, ça va bien", "El niño comió mañana"],
    "cp1251": ["Привет всем, как дела сегодня", "Новости дня: погода хорошая"],
    "cp1250": ["Zażółć gęślą jaźń", "Dzień dobry wszystkim, święta są piękne"],
    "cp932": ["今日はとても良い天気です", "東京に行きました、楽しかった"],
}


def table_of(texts: list[str]) -> str:
    rows = (
        f"{n},2020-01-0{n % 9 + 1},{texts[n % len(texts)] if n % 3 else 'plain English text'},bob{n}" for n in range(90)
    )
    return "id,created_at,text,author\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("encoding", TEXTS)
def test_other_encodings_are_found_read_and_said(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(table_of(TEXTS[encoding]).encode(encoding, "replace"))
    with formats.opened(path, tmp_path / "spill") as export:
        detection = formats.detect(export)
        (table,) = line_tables(detection.files[0])
    assert export.notes == [f"{path}: read as {encoding}"]
    expected = table_of(TEXTS[encoding]).encode(encoding, "replace").decode(encoding).splitlines()
    assert [line.strip() for line in table["content"].to_pylist()] == expected


def test_single_bytes_that_are_no_text_stay_rejects(tmp_path: Path) -> None:
    good = table_of(["schön und müde"]).encode()
    for bad in (good + b"1,2020-01-01,caf\xe9,bob\n", table_of(["plain"]).encode() + b"1,2020-01-01,caf\xe9,bob\n"):
        assert content.encoding_of(bad) is None
        (tmp_path / "a").write_bytes(bad)
        (table,) = line_tables(File.of(tmp_path / "a"))
        assert table["reject"].to_pylist() == [None] * 91 + ["not UTF-8"]


@pytest.mark.parametrize(
    "start", [b"", b"abc", "schön".encode(), "schön".encode()[:-2], b"PAR1\0\xff\xff\n\xff\n\xff", b"\x89PNG\xff\0"]
)
def test_what_is_utf_8_or_no_text_has_no_other_encoding(start: bytes) -> None:
    assert content.encoding_of(start) is None


def test_what_cannot_be_decoded_is_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\x93a\x94\n\x81\n\xe9")
    (table,) = line_tables(File(path, "a", "cp1252"))
    assert [line and line.strip() for line in table["content"].to_pylist()] == ["“a”", None, "é"]
    assert table["reject"].to_pylist() == [None, "not UTF-8", None]
    path.write_bytes("a\n".encode("utf-16") + b"\0\xd8\n\0b\0\n\0c")
    (table,) = line_tables(File.of(path))
    assert table["reject"].to_pylist() == [None, "not UTF-8", None, "not UTF-8"]


@given(st.binary(max_size=2000))
def test_any_bytes_have_an_encoding_or_none(start: bytes) -> None:
    name = content.encoding_of(start)
    assert name is None or b"".join(content._transcoded(start, [], name)) is not None


# names


def test_escape_sequences_do_not_reach_the_terminal(tmp_path: Path) -> None:
    assert printable("a\x1b[2Jb\n\u202ec\udce9é") == "a\\x1b[2Jb\\n\\u202ec\\udce9é"
    assert str(UserError("a\nb")) == "a\\nb"
    path = tmp_path / "a\x1b[31m\nb"
    path.write_bytes(b"rubbish")
    with pytest.raises(UserError) as error:
        exports.detect(path)
    assert str(error.value).isprintable()


def test_a_name_that_is_no_text_is_no_crash(tmp_path: Path) -> None:
    name = b"caf\xe9.jsonl".decode("utf-8", "surrogateescape")
    try:
        (tmp_path / name).write_text(json.dumps(TWEET))
    except OSError:
        pytest.skip("the file system wants names that are text")
    (batch,) = exports.batches(tmp_path)
    assert pa.Table.from_batches([batch])["file"].to_pylist() == [f"{tmp_path}/caf\\udce9.jsonl"]


def test_lines_longer_than_the_beginning_of_a_file_are_lines(tmp_path):
    pages = [json.dumps({"data": [{"id": str(number), "text": "x" * HEAD_BYTES}]}) for number in range(3)]
    (tmp_path / "a").write_text("\n".join(pages) + "\n")
    (table,) = record_tables(File.of(tmp_path / "a"))
    assert table["content"].to_pylist() == [f"{page}\n" for page in pages]  # as they stand, not taken apart
    (tmp_path / "b").write_text(json.dumps({"data": [{"id": str(number)} for number in range(20_000)]}))
    assert sum(len(table) for table in record_tables(File.of(tmp_path / "b"), ("data",))) == 20_000
