"""What a Redis server's settings mean for what is kept in it (floor 3)."""

from __future__ import annotations

from typing import Any

import msgspec

from sifaka.storage.base import Durability
from sifaka.storage.durability import is_weaker, loss

__all__ = ["QUESTIONS", "Settings", "read_settings"]

_NAMES = (
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "maxmemory",
    "maxmemory-policy",
    "save",
    "bind",
    "port",
    "protected-mode",
)
QUESTIONS: tuple[tuple[str, str], ...] = (
    *(("CONFIG GET", name) for name in _NAMES),
    ("INFO", "persistence"),
    ("INFO", "memory"),
    ("INFO", "replication"),
)
"""The commands whose answers tell a server's settings, in order."""
_HINT = "make it last with CONFIG REWRITE"


class Settings(msgspec.Struct, frozen=True):
    """What a server told; ``told`` is False where it forbids CONFIG, as managed servers do."""

    values: dict[str, str]
    told: bool
    info: dict[str, str]

    @property
    def kept(self) -> Durability:
        """What an acknowledged append survives, at least."""
        if self.may_evict:
            return "none"
        if not self.has_log:
            return "process"
        always = self.values.get("appendfsync") == "always"
        return "power" if always and self.values.get("no-appendfsync-on-rewrite") == "no" else "server"

    @property
    def has_log(self) -> bool:
        """Whether the server writes what it does to an append-only file."""
        return self.values.get("appendonly", "") == "yes" or self.info.get("aof_enabled") == "1"

    @property
    def may_evict(self) -> bool:
        """Whether the server may throw our keys away. Ours have no expiry: volatile policies spare them."""
        limit = self.values.get("maxmemory") or self.info.get("maxmemory", "0")
        policy = self.values.get("maxmemory-policy") or self.info.get("maxmemory_policy", "")
        return limit != "0" and policy.startswith("allkeys")

    @property
    def has_snapshots(self) -> bool:
        """Whether the server saves its whole content from time to time, as far as is known."""
        return bool(self.values.get("save", "unknown"))

    @property
    def cure(self) -> str:
        """What to set for the class "power"."""
        if self.may_evict:
            return f"Run CONFIG SET maxmemory-policy noeviction, and {_HINT}"
        if not self.told:
            return "Turn the append-only file with appendfsync always on, where your provider has that"
        if not self.has_log:
            return f"Run CONFIG SET appendonly yes and CONFIG SET appendfsync always, and {_HINT}"
        if self.values.get("appendfsync") != "always":
            return f"Run CONFIG SET appendfsync always, and {_HINT}"
        return f"Run CONFIG SET no-appendfsync-on-rewrite no, and {_HINT}"

    def complaints(self, url: str, asked: Durability, *, has_password: bool) -> list[str]:
        """What does not keep the promises, a sentence each with the way out."""
        found: list[str] = []
        if is_weaker(self.kept, asked):
            unknown = "" if self.told else " at least (it does not tell its settings)"
            found.append(f"{url} keeps durability {self.kept!r}{unknown}: {loss(self.kept)}. {self.cure}")
        if self.info.get("aof_last_write_status", "ok") != "ok":
            found.append(f"{url} could not write its append-only file: look at its disk and its log")
        if self.is_open and not has_password:
            found.append(
                f"{url} lets everybody in who can reach it, and holds prompts and texts: set a password "
                "(CONFIG SET requirepass), or bind it to 127.0.0.1"
            )
        if self.info.get("connected_slaves", "0") != "0":
            found.append(
                f"{url} has replicas, which follow it with a delay: a failover loses what was acknowledged "
                "just before. CONFIG SET min-replicas-to-write 1 narrows that, and does not end it"
            )
        return found

    @property
    def is_open(self) -> bool:
        """Whether other machines may connect without a password, if none is set."""
        if self.values.get("protected-mode") != "no" or self.values.get("port") == "0":
            return False
        addresses = self.values.get("bind", "").split() or ["*"]
        return any(one.lstrip("-") not in {"127.0.0.1", "::1", "localhost"} for one in addresses)


def read_settings(answers: list[Any]) -> Settings:
    """The settings that the answers to :data:`QUESTIONS` tell; an answer may be an error."""
    values: dict[str, str] = {}
    info: dict[str, str] = {}
    for (command, _), answer in zip(QUESTIONS, answers, strict=True):
        if not isinstance(answer, Exception):
            into = values if command == "CONFIG GET" else info
            into.update({_text(name): _text(value) for name, value in answer.items()})
    return Settings(values, "appendfsync" in values, info)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
