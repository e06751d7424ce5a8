"""Known vulnerabilities of packages, as https://osv.dev has them. It gets their names and versions, and nothing else.

Library of `audit.py`.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException

ADDRESS = "https://api.osv.dev/v1/querybatch"
SECONDS = 20.0


class UnreachableError(Exception):
    """The service gave no answer that can be read; the message says why, in a line."""


def known(packages: Sequence[tuple[str, str]], address: str = ADDRESS) -> dict[str, list[str]]:
    """Name to the ids of the advisories on its version, for those that have any.

    Args:
        packages: names and versions, as the package index writes them.
        address: of the service.

    Raises:
        UnreachableError: it cannot be asked.
    """
    queries = [
        {"package": {"ecosystem": "PyPI", "name": name}, "version": version.split("+")[0]} for name, version in packages
    ]
    request = urllib.request.Request(  # noqa: S310 (our own address)
        address, json.dumps({"queries": queries}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            results = json.load(answer)["results"]
        ids = [sorted(str(one["id"]) for one in result.get("vulns", [])) for result in results]
        return {name: found for (name, _), found in zip(packages, ids, strict=True) if found}
    except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UnreachableError(" ".join(f"{type(error).__name__}: {reason}".split())) from error
