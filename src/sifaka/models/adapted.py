"""A user's own pydantic-ai model or agent as a model of ours (floor 2).

A model goes the way of the providers' models; only its client is the user's. An agent's run is one opaque
call, however many requests it makes: to have each of them recorded, see :mod:`sifaka.integrations`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sifaka.errors import ModelSpecError, PartError
from sifaka.models import asking, connect, loop, pricing
from sifaka.models.fallback import FallbackModel
from sifaka.models.options import settle, with_aliases
from sifaka.models.providers import ProviderModel
from sifaka.parts import Reply, Usage

if TYPE_CHECKING:
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model as Backend

    from sifaka.parts import Model

__all__ = [
    "AdaptedModel",
    "AgentModel",
    "adapted",
    "innermost",
    "is_served",
    "send_once",
    "text_of",
]

_NO_SETTINGS = frozenset({"json_schema", "timeout_s"})
"""What an agent decides itself, and what the caller's own clock does as well."""


def adapted(backend: Backend) -> Model:
    """A pydantic-ai model as one of ours; its FallbackModel as ours, which makes each switch a record.

    When to ask the next one is then decided by the fault, as everywhere, and no more by ``fallback_on``.
    """
    from pydantic_ai.models.fallback import FallbackModel as Choice

    if isinstance(backend, Choice):
        return FallbackModel(*[adapted(one) for one in backend.models])
    return AdaptedModel(backend)


class AdaptedModel(ProviderModel):
    """A pydantic-ai model that the user has made; ``backend`` is the original.

    It is asked in an event loop of its own, as all models here are: give it no client that another loop uses.
    After a fork the child needs one of its own.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        send_once(backend)
        super().__init__(f"{backend.system}:{backend.model_name}", {})

    def __repr__(self) -> str:
        return f"adapt_model({self.backend!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.backend,)

    def as_deferred(self) -> ProviderModel:
        """Not possible: a batch outlives the process, and another could not make this client again."""
        raise ModelSpecError(
            f"{self.name!r} was made by you and cannot be asked through batches; give its spec instead",
            self.name,
        )

    def sibling(self, spec: str) -> ProviderModel:
        """One that is opened from its spec alone: the settings are in the client that you made."""
        return ProviderModel(spec, {})

    def _connected(self) -> tuple[int, Backend]:
        return os.getpid(), self.backend

    def _engines(self) -> frozenset[str]:
        """A stream is heard only from those that say why it ended: a cut one must not pass for whole."""
        names = super()._engines()
        return names if is_served(self.backend) else names - {"hear"}


class AgentModel:
    """A pydantic-ai agent as a model: the prompt goes in, its output comes out; ``agent`` is the original.

    ``system_prompt`` adds to the agent's instructions, and options become model settings. Output that is no
    text becomes JSON. Usage and price are those of all its requests; what they may cost at most is unknown.
    """

    def __init__(self, agent: AbstractAgent[Any, Any]) -> None:
        self.agent = agent
        self._known = known = _known(agent)
        name = agent.name or type(agent).__name__
        self.name = f"agent:{name}" if known is None else f"agent:{name}@{known.system}:{known.model_name}"
        self.provider = "" if known is None else known.system
        options = frozenset({"system_prompt"})
        if known is not None:
            options |= asking.accepted(known) - _NO_SETTINGS
        self.accepts = with_aliases(options)

    def __repr__(self) -> str:
        return f"adapt_model({self.agent!r})"

    def generate(self, prompt: str, **options: Any) -> Reply:
        """The agent's output; blocks, also where an event loop runs in the calling thread.

        Raises PartError for output that no record can hold, and what the agent raised.
        """
        return loop.run(self.agenerate(prompt, **options))

    async def agenerate(self, prompt: str, **options: Any) -> Reply:
        """As :meth:`generate`, in the running event loop, where its tools may be at home."""
        applied, not_applied = settle({}, options, self.accepts)
        result = await self.agent.run(
            prompt,
            instructions=applied.pop("system_prompt", None),
            model_settings=self._settings(applied),
            capabilities=[_sending_once()()],
            infer_name=False,
        )
        answers = [one for one in result.new_messages() if one.kind == "response"]
        usage = result.usage
        return Reply(
            text=text_of(result.output, self.name),
            usage=Usage(usage.input_tokens, usage.output_tokens) if usage.has_values() else None,
            price_usd=_price_usd(answers),
            finish_reason=(answers[-1].finish_reason or "") if answers else "",
            request_id=(answers[-1].provider_response_id or "") if answers else "",
            model=self._answered(answers),
            not_applied=not_applied,
        )

    def _settings(self, applied: Mapping[str, Any]) -> Any:
        """Only what was asked for: the agent's own settings hold for the rest."""
        if self._known is None:
            return None
        settings: dict[str, Any] = asking.make_ask(self._known, "", applied).settings
        if "max_tokens" not in applied:
            settings.pop("max_tokens", None)
        return settings or None

    def _answered(self, answers: Sequence[ModelResponse]) -> str:
        name = answers[-1].model_name if answers else None
        return f"{self.provider}:{name}" if name else self.name


def _known(agent: AbstractAgent[Any, Any]) -> Backend | None:
    """What the agent asks, to know what it takes; None where it chooses as it runs, or has several."""
    given = agent.model
    if given is None or not isinstance(given, str):
        return given if given is not None and len(list(innermost(given))) == 1 else None
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import infer_model

    try:
        return infer_model(given)
    except (ImportError, UserError, ValueError) as error:
        raise ModelSpecError(f"the agent's model {given!r} cannot be opened: {error}", given) from error


@cache
def _sending_once() -> Any:
    """The capability of a run whose models, also those it opens itself, send each request once."""
    from pydantic_ai.capabilities import AbstractCapability

    class SendingOnce(AbstractCapability[Any]):
        def get_wrapper_model(self, model: Backend) -> None:
            send_once(model)

    return SendingOnce


def innermost(backend: Any) -> Iterator[Backend]:
    """The models that send requests behind ``backend``: itself, or those it wraps or chooses among."""
    from pydantic_ai.models.fallback import FallbackModel
    from pydantic_ai.models.wrapper import WrapperModel

    if isinstance(backend, WrapperModel):
        yield from innermost(backend.wrapped)
    elif isinstance(backend, FallbackModel):
        for one in backend.models:
            yield from innermost(one)
    else:
        yield backend


def send_once(backend: Any) -> None:
    """Tell the libraries behind ``backend`` to send each request once."""
    for one in innermost(backend):
        connect.send_once(one)


def is_served(backend: Backend) -> bool:
    """Whether a provider's own class is behind it, none for tests and none of the user's making."""
    modules = {type(one).__module__ for one in innermost(backend)}
    doubles = {"pydantic_ai.models.test", "pydantic_ai.models.function"}
    return not modules & doubles and all(one.startswith("pydantic_ai.models.") for one in modules)


def _price_usd(answers: Sequence[ModelResponse]) -> float | None:
    """The price of all requests, in US dollars; None where one is unknown."""
    prices = [pricing.price_usd(one) for one in answers]
    known = [price for price in prices if price is not None]
    return sum(known) if known and len(known) == len(prices) else None


def text_of(output: object, who: str) -> str:
    """An agent's output as a text, JSON where it is none. Raises PartError."""
    if isinstance(output, str):
        return output
    from pydantic_core import PydanticSerializationError, to_json

    try:
        return to_json(output).decode()
    except (PydanticSerializationError, ValueError) as error:
        kind = type(output).__name__
        raise PartError(f"{who} returned a {kind}, which cannot be written as JSON: {error}") from error
