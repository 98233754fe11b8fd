"""Models of other frameworks as models of ours, without importing the frameworks (floor 2).

- pydantic-ai: a ``Model``, which is asked as the providers are; an ``Agent``, whose whole run is one call.
- LangChain: a ``Runnable``: a chat model, a language model, or a chain that takes a text.

An object is known by the classes it descends from, so nothing is loaded to find out; once it is known, what
its own framework has loaded already is used. LangChain's models have a ``generate`` of another meaning: what
is known here goes before what merely looks like a model of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from sifaka.parts import Model

__all__ = ["adapt_model"]

_ROOTS = {
    ("pydantic_ai.models", "Model"): "model",
    ("pydantic_ai.agent.abstract", "AbstractAgent"): "agent",
    ("langchain_core.runnables.base", "Runnable"): "runnable",
}
"""The classes that make an object one of a framework's, by module and name."""


def adapt_model(model: object) -> Model | None:
    """``model`` as a model of ours; None for one that needs no adapting, or is no model at all.

    That is an object with our own ``generate``, a plain callable, a spec, a class. The library behind a
    pydantic-ai model is told to send each request once: attempts are counted, and recorded, by who asks.

    Raises:
        ModelSpecError: an agent's model cannot be opened.
    """
    kind = _kind_of(model)
    if kind is None:
        return None
    if kind == "runnable":
        from sifaka.models.runnables import RunnableModel

        return RunnableModel(model)
    from sifaka.models.adapted import AgentModel, adapted

    return AgentModel(cast("Any", model)) if kind == "agent" else adapted(cast("Any", model))


def _kind_of(model: object) -> str | None:
    if isinstance(model, type):
        return None
    bases = ((base.__module__, base.__name__) for base in type(model).__mro__)
    return next((_ROOTS[base] for base in bases if base in _ROOTS), None)
