"""Exports that lie elsewhere: `s3://`, `gs://`, `https://` and whatever else fsspec knows, fetched file by file.

Library of the sources; not a format.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ntulm.corpus.sources.export import File
from ntulm.errors import UserError

# One letter is a drive of Windows. `Path` makes one slash of two.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)", re.IGNORECASE | re.DOTALL)
_SECRETS = re.compile(r"(?<=://)[^/@]*@|[?#].*", re.DOTALL)  # names and passwords; signatures
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
PACKAGES |= {"http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "hf": "huggingface_hub"}
NOT_FOUND = 404
SPARE_BYTES = 1 << 28  # of the disk that are left free


def address(path: str | Path) -> str | None:
    """The address that a path is, or None for a local one."""
    match = _ADDRESS.fullmatch(str(path))
    return None if match is None else f"{match.group(1).lower()}://{match.group(2)}"


def shown_address(url: str) -> str:
    """An address without passwords and signatures."""
    return _SECRETS.sub("", url)


def fetched(url: str, folder: Path) -> Iterator[File]:
    """The files at an address, fetched one after the other in the order of their names; hidden ones are left out.

    Args:
        url: of a file or folder.
        folder: where they are put.

    Raises:
        UserError: the package for such addresses is missing, there is nothing, or it cannot be fetched.
    """
    system, place = _system(url)
    name = shown_address(url)
    try:
        one = url.startswith(("http:", "https:")) or system.isfile(place)
        found = [place] if one else sorted(system.find(place))
        visible = [file for file in found if one or not _hidden(file, place)]
        for number, file in enumerate(visible):
            target = folder / f"{number:06}"
            _refuse_much(name, system.info(file).get("size"), folder)
            system.get_file(file, str(target))
            yield File(target, name if one else f"{name.rstrip('/')}/{file[len(place.rstrip('/')) :].lstrip('/')}")
    except UserError:
        raise
    except Exception as error:  # each kind of store has its own
        cause = error.__cause__ or error  # a server that does not answer is a file not found too
        if isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == NOT_FOUND:
            raise UserError(f"{name}: not found; `corpus.path` names a file or a folder of raw exports") from error
        reason = shown_address(" ".join(str(cause).split())[:200])
        raise UserError(f"{name}: cannot be fetched ({type(cause).__name__}: {reason})") from error
    if not visible:
        raise UserError(f"{name}: no files there; `corpus.path` names a file or a folder of raw exports")


def _system(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    try:
        import fsspec

        system, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = PACKAGES.get(scheme, "for it")
        raise UserError(f"{scheme}://: needs the package {package}; `pip install {package}`") from error
    except Exception as error:  # what settings are missing is for each kind of store to say
        raise UserError(f"{shown_address(url)}: cannot be opened ({' '.join(str(error).split())[:200]})") from error
    return system, place


def _hidden(file: str, place: str) -> bool:
    return any(part.startswith(".") for part in file[len(place) :].split("/"))


def _refuse_much(name: str, size: int | None, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size is not None and size + SPARE_BYTES > free:
        raise UserError(f"{name}: {size >> 20:,} MB are to be fetched, but {folder} has only {free >> 20:,} MB free")
