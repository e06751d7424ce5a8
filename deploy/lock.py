"""The packages of the environment with the hash of each file that was installed, from the report that pip wrote.

    python -m deploy.lock [FILE]    # `make lock`, which writes build/requirements.lock

An installation from that file takes these bytes and no others: `make env LOCK=build/requirements.lock`. It is not kept
in the repository: hashes are those of the files that one index has for one platform (builds of torch for the CPU alone
come from an index of their own). The versions are those of constraints.txt.
"""

import sys
from pathlib import Path
from typing import Any

from deploy.audit import OWN, normal
from ntulm.files import read_json

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / ".venv/installed.json"  # `make env` has it written
HEAD = "# Made by `make lock` from what was installed, for this platform and index: see deploy/lock.py.\n"


def locked(report: dict[str, Any]) -> str:
    """A requirements file with hashes of an installation report of pip.

    Raises:
        ValueError: a file without a SHA-256; the message names its package.
    """
    lines = []
    for item in report["install"]:
        name, version = normal(item["metadata"]["name"]), item["metadata"]["version"]
        if name == OWN:
            continue
        sha256 = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not sha256:
            raise ValueError(f"{name} {version}: it was not installed from a file with a SHA-256")
        lines.append(f"{name}=={version} --hash=sha256:{sha256}\n")
    return HEAD + "".join(sorted(lines))


def main() -> int:
    """Write the file."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/requirements.lock"
    if not REPORT.is_file():
        print(f"error: {REPORT} not found; `make env` writes it: remove .venv and make it anew", file=sys.stderr)
        return 1
    try:
        text = locked(read_json(REPORT))
    except ValueError as error:
        print(f"error: no lock was written: {error}", file=sys.stderr)
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {text.count('--hash')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
