"""Several models in one place: the first that answers does (floor 2).

In a chain the engine makes the choice: it reads :attr:`FallbackModel.models`, knows which provider is in
trouble, and records each switch. Standing alone the model tries them in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sifaka.errors import ModelSpecError

__all__ = ["FallbackModel"]

_CURABLE = frozenset(
    {
        "auth",
        "connection",
        "content_filter",
        "context_length",
        "empty_output",
        "malformed_output",
        "not_found",
        "out_of_memory",
        "overloaded",
        "permission",
        "quota_exhausted",
        "rate_limit",
        "server_error",
        "timeout",
        "truncated",
    }
)
"""Faults that are the provider's or the model's own, so that another one may not have them."""


class FallbackModel:
    """A model that is several: ``FallbackModel("anthropic:claude-sonnet-5", "local:smollm2")``.

    Args:
        models: specs, models or callables, the first wanted most.
        settings: for each model that is given by its spec, as :func:`sifaka.models.create_model` takes them.
    """

    def __init__(self, *models: Any, **settings: Any) -> None:
        if not models:
            raise ModelSpecError(
                "a FallbackModel needs models: FallbackModel('anthropic:…', 'local:smollm2')"
            )
        self._given = models
        self._settings = settings
        self._opened: list[Any] = []
        self.name = f"fallback({', '.join(_name(one) for one in models)})"
        self.provider = "fallback"

    def __repr__(self) -> str:
        return f"FallbackModel({', '.join(repr(_name(one)) for one in self._given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._given, self._settings)

    @property
    def models(self) -> tuple[Any, ...]:
        """The models, made from their specs when first asked for. Raises what ``create_model`` raises."""
        for place in range(len(self._given)):
            self._model(place)
        return tuple(self._opened)

    @property
    def accepts(self) -> frozenset[str]:
        """The options that any of them takes; what the one that answers cannot take is in ``not_applied``."""
        return frozenset(option for model in self.models for option in getattr(model, "accepts", ()))

    def price_max_usd(self, prompt: str, options: Mapping[str, Any]) -> float | None:
        """The most a call can cost in US dollars, whoever answers; None where one's price is unknown."""
        prices: list[float] = []
        for model in self.models:
            asked = getattr(model, "price_max_usd", None)
            price = asked(prompt, options) if asked is not None else None
            if price is None:
                return None
            prices.append(price)
        return max(prices)

    def generate(self, prompt: str, **options: Any) -> Any:
        """The answer of the first model that gives one; blocks, unless an async model is among them.

        Raises:
            Exception: what a model failed with, where another one cannot cure that, or there is no other.
        """
        for place in range(len(self._given)):
            model = self._model(place)
            try:
                return _call(getattr(model, "generate", model), model, prompt, options)
            except Exception as error:
                if not self._goes_on(place, error):
                    raise
        raise AssertionError  # the last one either answers or raises

    async def agenerate(self, prompt: str, **options: Any) -> Any:
        """As :meth:`generate`, without blocking the event loop."""
        for place in range(len(self._given)):
            model = self._model(place)
            function = getattr(model, "agenerate", None) or getattr(model, "generate", model)
            try:
                answer: Any = _call(function, model, prompt, options)
                return await answer if hasattr(answer, "__await__") else answer
            except Exception as error:
                if not self._goes_on(place, error):
                    raise
        raise AssertionError  # the last one either answers or raises

    def _goes_on(self, place: int, error: Exception) -> bool:
        from sifaka.faults import classify

        return place + 1 < len(self._given) and classify(error).kind in _CURABLE

    def _model(self, place: int) -> Any:
        from sifaka.models.base import create_model

        while len(self._opened) <= place:
            given = self._given[len(self._opened)]
            self._opened.append(create_model(given, **self._settings) if isinstance(given, str) else given)
        return self._opened[place]


def _call(function: Any, model: Any, prompt: str, options: Mapping[str, Any]) -> Any:
    """One model's answer, with the options it takes: a callable that says nothing of them gets none."""
    accepts = getattr(model, "accepts", None)
    if accepts is None:
        accepts = options if hasattr(model, "generate") else ()
    return function(prompt, **{name: value for name, value in options.items() if name in accepts})


def _name(model: Any) -> str:
    return (
        model if isinstance(model, str) else str(getattr(model, "name", getattr(model, "__name__", "model")))
    )


def _again(given: tuple[Any, ...], settings: dict[str, Any]) -> FallbackModel:
    return FallbackModel(*given, **settings)
