"""What a provider's call cost, and the most a call can cost, by genai-prices' tables (floor 2).

An unknown price is None. It is never 0, and never a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sifaka.parts import Usage

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model as Backend

__all__ = ["context_window", "price_max_usd", "price_of_usage", "price_usd"]


def price_usd(response: ModelResponse, backend: Backend | None = None) -> float | None:
    """The price of an answered call in US dollars; None where model or usage is unknown.

    Without a ``backend``, what the response itself tells of its provider has to do.
    """
    if not response.usage.has_values():
        return None
    if backend is None:
        try:
            return float(response.cost().total_price)
        except Exception:  # noqa: BLE001 (the answer is paid for: no fault of a table may lose it)
            return None
    # The answer names the exact version of the model; the tables may know its alias only.
    for name in (response.model_name, backend.model_name):
        try:
            price = _price(response.usage, name, backend, response.provider_details)
        except Exception:  # noqa: BLE001 (the answer is paid for: no fault of a table may lose it)
            return None
        if price is not None:
            return price
    return None


def price_of_usage(usage: Usage | None, model: str, provider: Any) -> float | None:
    """The price of so many tokens in US dollars; None: unknown, or the tables are not installed."""
    if usage is None or not model:
        return None
    try:
        from genai_prices import Usage as Counted
        from genai_prices import calc_price

        counted = Counted(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
        priced = calc_price(counted, model, provider_id=provider if isinstance(provider, str) else None)
        return float(priced.total_price)
    except Exception:  # noqa: BLE001 (the answer is paid for: no fault of a table may lose it)
        return None


def price_max_usd(
    backend: Backend, input_tokens: int, output_tokens: int, *, batch: bool = False
) -> float | None:
    """The price of a call of that size in US dollars; None where the model's price is unknown.

    ``batch`` asks for the price inside a batch, where the tables have one; else it is the usual one.
    """
    from genai_prices import Usage as Counted

    usage = Counted(input_tokens=input_tokens, output_tokens=output_tokens)
    return _price(usage, backend.model_name, backend, {"processing": "batch"} if batch else None)


def context_window(backend: Backend) -> int | None:
    """The most tokens the model can read and write in one call; None if unknown."""
    return backend.profile.get("context_window")


def _price(
    usage: Any, name: str | None, backend: Backend, circumstances: dict[str, Any] | None
) -> float | None:
    """``circumstances`` are what else the price hangs on: a batch, a service tier."""
    from genai_prices import calc_price

    if not name:
        return None
    # Several providers resell one model: the address tells them apart, where it is a known one.
    try:
        priced = calc_price(usage, name, provider_api_url=backend.base_url, price_context=circumstances)
        return float(priced.total_price)
    except (AttributeError, LookupError, ValueError):
        pass  # no address, or none of the tables'
    try:
        priced = calc_price(usage, name, provider_id=backend.system, price_context=circumstances)
        return float(priced.total_price)
    except (LookupError, ValueError):
        return None
