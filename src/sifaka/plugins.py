"""Parts that other packages bring: found by their entry points, loaded when they are asked for (floor 1).

A package announces a part in its metadata, under one of the groups ``sifaka.models``, ``sifaka.retrievers``,
``sifaka.validators``, ``sifaka.critics`` and ``sifaka.storage``; what is installed is what may be loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sifaka.errors import PartError

__all__ = ["GROUPS", "find_plugin", "load_plugin", "plugin_names"]

GROUPS = {
    "model": "sifaka.models",
    "model_retriever": "sifaka.retrievers",
    "critic_retriever": "sifaka.retrievers",
    "validator": "sifaka.validators",
    "critic": "sifaka.critics",
    "storage": "sifaka.storage",
}
"""The entry points' group of each kind of part."""


def plugin_names(kind: str) -> list[str]:
    """The names that installed packages offer for this kind of part, sorted."""
    from importlib.metadata import entry_points

    return sorted({one.name for one in entry_points(group=GROUPS[kind])})


def find_plugin(kind: str, name: str) -> Callable[..., Any] | None:
    """What the entry point ``name`` names, a factory; None where no package offers it.

    Raises PartError where it cannot be loaded.
    """
    from importlib.metadata import entry_points

    found = next(iter(entry_points(group=GROUPS[kind], name=name)), None)
    if found is None:
        return None
    try:
        factory: Callable[..., Any] = found.load()
    except Exception as error:
        raise PartError(f"the {kind} {name!r} of {found.value!r} cannot be loaded: {error!r}") from error
    if not callable(factory):
        raise PartError(f"the {kind} {name!r} of {found.value!r} is no class or function: {factory!r}")
    return factory


def load_plugin(kind: str, name: str) -> object:
    """The part that ``name`` names, made without arguments. Raises PartError, which says what there is."""
    factory = find_plugin(kind, name)
    what = kind.replace("_", " ")
    if factory is None:
        known = ", ".join(plugin_names(kind)) or "none"
        raise PartError(
            f"no installed package offers a {what} named {name!r} under the entry points "
            f"{GROUPS[kind]!r} (there are: {known}); pass an object or a callable"
        )
    try:
        return factory()
    except Exception as error:
        raise PartError(f"the {what} {name!r} cannot be made without arguments: {error!r}") from error
