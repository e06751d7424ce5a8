"""Who can reach the server, and the key that they need. Standard library alone: it is checked first."""

from __future__ import annotations

import ipaddress

from ntulm.errors import UserError

KEY = "NTULM_API_KEY"
SHORTEST_KEY = 16  # characters


def key_for(host: str, key: str | None) -> str | None:
    """The key that requests need; None: none.

    Args:
        host: the address that is listened on.
        key: what stands in the environment.

    Raises:
        UserError: there has to be one, or it is too short to be one.
    """
    if not key and not is_loopback(host):
        raise UserError(f"--host {host}: others can reach it; set {KEY} in the environment, or listen on 127.0.0.1")
    if key and len(key) < SHORTEST_KEY:
        raise UserError(f"{KEY}: {len(key)} characters; expected {SHORTEST_KEY} at least")
    return key or None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name other than `localhost` may stand for anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
