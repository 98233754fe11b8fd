"""A chain's parts as the engine calls them: named, fingerprinted, of one shape each (floor 5).

Whatever a user plugs in (an object with the right method, a plain callable, a model spec's model)
becomes a :class:`BoundPart` or a :class:`BoundModel`. A callable is known by its name, never by its
identity, so that tomorrow's process recognises today's plan.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import CodeType
from typing import Any, cast
from zlib import adler32, crc32

import msgspec

from sifaka.errors import PartError, UsageError
from sifaka.log.records import PlannedPart
from sifaka.plugins import load_plugin
from sifaka.retrievers.foreign import adapt_retriever

__all__ = [
    "METHODS",
    "BoundModel",
    "BoundPart",
    "Plan",
    "bind_model",
    "bind_part",
    "digest_of",
    "name_of_model",
    "new_chain_id",
    "price_of",
    "resolve_model",
]

METHODS = {
    "model_retriever": "retrieve",
    "critic_retriever": "retrieve",
    "validator": "validate",
    "critic": "critique",
}
"""The method that makes an object a part, by the part's kind."""

_COROUTINE, _GENERATOR = 0x80, 0x20
_VARARGS, _VARKEYWORDS = 0x04, 0x08


class BoundModel(msgspec.Struct, frozen=True):
    """A model. ``accepts`` are the options it takes, None for any."""

    name: str
    generate: Callable[..., Any]
    coroutine: bool
    agenerate: Callable[..., Any] | None
    accepts: frozenset[str] | None
    price_max_usd: Callable[[str, Mapping[str, Any]], float | None] | None
    fingerprint: str = ""
    provider: str = ""
    look_up: Callable[..., Any] | None = None
    alook_up: Callable[..., Any] | None = None
    models: tuple[Any, ...] = ()
    """Where this is a choice: models or their specs, the first wanted most."""
    deferred: bool = False
    as_deferred: Callable[[], Any] | None = None
    """Makes its twin whose calls go through the provider's batches."""
    sibling: Callable[[str], Any] | None = None
    """Makes another model of its provider, from a spec, with the settings of this one."""

    def twin(self) -> BoundModel:
        """The same model through the provider's batches. Raises UsageError where it has none."""
        if self.deferred or self.models:  # of a choice each model has its own
            return self
        if self.as_deferred is None:
            raise UsageError(
                f"deferred=True needs models that can be asked through a provider's batches, and {self.name} "
                "cannot; models of Anthropic, OpenAI (openai-responses:…) and Google can"
            )
        return bind_model(self.as_deferred())

    def takes(self, name: str) -> bool:
        """Whether it said that the engine may give it ``name``."""
        return self.accepts is not None and name in self.accepts

    def can_settle(self, handle: str | None) -> bool:
        """Whether it can find out what became of a call, by the provider's id or by ours."""
        return self.look_up is not None and (bool(handle) or self.takes("call_id"))

    def fit(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The options this model takes, and the names of those it cannot."""
        accepts = self.accepts
        if accepts is None or not options:
            return dict(options), ()
        taken = {name: value for name, value in options.items() if name in accepts}
        return taken, tuple(name for name in options if name not in accepts)


class BoundPart(msgspec.Struct, frozen=True):
    """A retriever, validator or critic.

    ``asks`` says that it is a generator that yields model requests, to ``models`` where it has some of its
    own; ``pure`` that it calls nobody and costs nothing, so that it needs no intent.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    coroutine: bool = False
    asks: bool = False
    pure: bool = False
    fingerprint: str = ""
    models: tuple[Any, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """All that a run calls."""

    model: BoundModel
    model_retrievers: tuple[BoundPart, ...] = ()
    critic_retrievers: tuple[BoundPart, ...] = ()
    validators: tuple[BoundPart, ...] = ()
    critics: tuple[BoundPart, ...] = ()

    def parts(self) -> tuple[PlannedPart, ...]:
        """The plan as it is recorded; the model is a setting and may change, so it has no name here."""
        return tuple([PlannedPart(part.kind, part.name, part.fingerprint) for part in self.all_parts()])

    def all_parts(self) -> tuple[BoundPart, ...]:
        """The parts in the plan's order."""
        return self.model_retrievers + self.critic_retrievers + self.validators + self.critics


def price_of(model: BoundModel, prompt: str, options: Mapping[str, Any]) -> float | None:
    """The most a call can cost (US dollars); None where the model cannot tell."""
    if model.price_max_usd is None:
        return None
    try:
        return float(model.price_max_usd(prompt, options))  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - whatever a user's function raises, the price is unknown
        return None


def bind_part(kind: str, part: object, taken: Iterable[str]) -> BoundPart:
    """``part`` as a part of that kind, under a name not in ``taken``. Raises PartError.

    A text is the name of one that an installed package offers.
    """
    method = METHODS[kind]
    if isinstance(part, str):
        part = load_plugin(kind, part)
    if method == "retrieve":
        part = adapt_retriever(part) or part
    function: Any = None if isinstance(part, type) else getattr(part, method, part)
    if not callable(function):
        remedy = "Pass an instance, not the class" if isinstance(part, type) else "Check what you passed"
        raise PartError(
            f"{part!r} is no {kind.replace('_', ' ')}: it needs a method {method}(), or to be a "
            f"callable. {remedy}"
        )
    asks = _has(function, _GENERATOR)
    return BoundPart(
        kind=kind,
        name=_unique(_name_of(part), taken),
        function=function,
        coroutine=_has(function, _COROUTINE),
        asks=asks,
        pure=getattr(part, "pure", False) is True,
        fingerprint=_fingerprint(part),
        models=_own_models(part) if asks else (),
    )


def bind_model(model: object) -> BoundModel:
    """``model`` as a model: an object with ``generate``, or a callable. Raises PartError."""
    model = _adapted(model)
    generate = getattr(model, "generate", None)
    agenerate = getattr(model, "agenerate", None)
    if not callable(generate):
        generate = agenerate if callable(agenerate) else model
    if isinstance(model, type) or not callable(generate):
        raise PartError(
            f"{model!r} is no model: it needs a method generate(prompt, **options), or to be a callable "
            'that takes a prompt and returns a text, or a spec such as "local:smollm2"'
        )
    stated = getattr(model, "accepts", None)
    price = getattr(model, "price_max_usd", None)
    return BoundModel(
        name=_name_of(model),
        generate=generate,
        coroutine=_has(generate, _COROUTINE),
        agenerate=agenerate if callable(agenerate) else None,
        accepts=_accepted(generate) if stated is None else frozenset(stated),
        price_max_usd=cast("Any", price) if callable(price) else None,
        fingerprint=_fingerprint(model),
        provider=_text_of(model, "provider"),
        look_up=_method(model, "look_up"),
        alook_up=_method(model, "alook_up"),
        models=_models_of(model),
        deferred=getattr(model, "deferred", False) is True,
        as_deferred=_method(model, "as_deferred"),
        sibling=_method(model, "sibling"),
    )


def _own_models(part: object) -> tuple[Any, ...]:
    """The models a part asks beside, or instead of, the chain's: known before it asks them."""
    single = (getattr(part, name, None) for name in ("model", "meta_model"))
    return (*(one for one in single if one is not None), *_models_of(part))


def _method(model: object, name: str) -> Callable[..., Any] | None:
    found = getattr(model, name, None)
    return found if callable(found) else None


def _text_of(model: object, name: str) -> str:
    found = getattr(model, name, "")
    return found if isinstance(found, str) else ""


def _models_of(model: object) -> tuple[Any, ...]:
    found = getattr(model, "models", ())
    return found if isinstance(found, tuple) else ()  # pyright: ignore[reportUnknownVariableType]


def name_of_model(model: object) -> str:
    """The name that a model, or its spec, goes by."""
    return model if isinstance(model, str) else _name_of(_adapted(model))


def _adapted(model: object) -> object:
    from sifaka.models.foreign import adapt_model

    return adapt_model(model) or model


def resolve_model(model: object) -> BoundModel:
    """``model``, or the model that a spec string names. Raises ModelSpecError, PartError."""
    if isinstance(model, str):
        from sifaka.models.base import create_model

        model = create_model(model)
    return bind_model(model)


def _name_of(part: object) -> str:
    for attribute in ("name", "__name__"):
        name = getattr(part, attribute, None)
        if isinstance(name, str) and name:
            return name
    return _name_of(part.func) if isinstance(part, partial) else type(part).__name__


def _unique(name: str, taken: Iterable[str]) -> str:
    used, number, unique = set(taken), 2, name
    while unique in used:
        unique = f"{name}-{number}"
        number += 1
    return unique


def _code(function: object) -> Any:
    """The code object behind a function, method or callable object, or None."""
    if isinstance(function, partial):
        return _code(function.func)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if not isinstance(code, CodeType):
        call = getattr(type(function), "__call__", None)  # noqa: B004 - its code is wanted, not a yes or no
        code = getattr(call, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _has(function: object, flag: int) -> bool:
    code = _code(function)
    return code is not None and bool(code.co_flags & flag)


def _accepted(function: Callable[..., Any]) -> frozenset[str] | None:
    """The keywords a callable takes beside the prompt; None: any, or not to be found out."""
    code = _code(getattr(function, "__wrapped__", function))
    if code is None:
        return frozenset()
    if code.co_flags & _VARKEYWORDS:
        return None
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    skip = 1 if names[:1] != ("self",) else 2
    return frozenset(names[skip:])


def _fingerprint(part: object) -> str:
    """A digest of the part's plain settings: equal settings, equal digest, in any process."""
    fields: dict[str, Any] = getattr(part, "__dict__", {})
    plain = (str, int, float, bool, tuple, list, type(None))
    settings: dict[str, Any] = {
        name: value for name, value in fields.items() if not name.startswith("_") and isinstance(value, plain)
    }
    return digest_of(sorted(settings.items(), key=str)) if settings else ""


def digest_of(value: object) -> str:
    """A short digest of a plain value: what tells one request from another, not a forged one.

    A value that no record could hold has none.
    """
    try:
        data = msgspec.msgpack.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ""
    return f"{crc32(data):08x}{adler32(data):08x}"


def new_chain_id() -> str:
    """A name for a new run: 16 hexadecimal digits of the system's randomness."""
    return os.urandom(8).hex()
