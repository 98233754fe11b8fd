"""The address of a Postgres store: what psycopg gets, what is ours, and what people may see (floor 3)."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sifaka.errors import UsageError

__all__ = ["Address"]

_OURS = ("schema", "durability")
_SECRET = ("password", "sslpassword")


class Address:
    """A libpq URL, taken apart: what is ours (``options``), what psycopg gets, and what people may see."""

    def __init__(self, url: str) -> None:
        rest, _, query = url.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&") if pair]
        self.options = {key: unquote(value) for key, _, value in pairs if key in _OURS}
        theirs = [(key, value) for key, _, value in pairs if key not in _OURS]
        self._libpq = _joined(rest, theirs)
        self.shown = _joined(_masked(rest), [(k, "***" if k in _SECRET else v) for k, _, v in pairs])
        if "://" not in rest:
            raise UsageError("a Postgres store is opened by an address like postgresql://user@host/database")
        if rest.count("@") > 1:  # libpq would take a piece of the password for the host, and print it
            raise UsageError(f"the address {self.shown} has more than one @: write @ in a password as %40")

    def parameters(self, timeout_s: float) -> dict[str, Any]:
        """What psycopg is to connect with; what the URL says goes before our defaults."""
        try:
            given: dict[str, Any] = dict(conninfo_to_dict(self._libpq))
        except psycopg.Error:  # its text may hold a piece of the password
            raise UsageError(
                f"the address {self.shown} is no libpq URL; special characters in a password are "
                "written percent-encoded (@ as %40)"
            ) from None
        defaults: dict[str, Any] = {
            "connect_timeout": max(2, round(timeout_s)),
            "tcp_user_timeout": round(timeout_s * 1000),
            "keepalives_idle": 10,
            "keepalives_interval": 3,
            "keepalives_count": 3,
            "application_name": "sifaka",
        }
        return defaults | given | {"client_encoding": "utf8"}


def _joined(rest: str, pairs: list[tuple[str, str]]) -> str:
    return rest + ("?" + "&".join(f"{key}={value}" for key, value in pairs) if pairs else "")


def _masked(rest: str) -> str:
    scheme, mark, place = rest.partition("://")
    user, at, host = place.rpartition("@")
    name, colon, _ = user.partition(":")
    return scheme + mark + name + (colon and ":***") + at + host
