"""What one life of a run has at hand: its state, what is not yet durable, its models and limits (floor 5)."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, cast

import msgspec

from sifaka.clock import Clock
from sifaka.engine.effects import Append, Effect, Learn
from sifaka.engine.options import ENGINE_OPTIONS
from sifaka.engine.plan import BoundModel, Plan, bind_model, name_of_model, resolve_model
from sifaka.engine.steps import OPERATION_TABLE
from sifaka.log.records import Intent, Record
from sifaka.log.state import State
from sifaka.recovery.evidence import Attempt
from sifaka.recovery.limits import Budget, Limits
from sifaka.storage.base import Change

__all__ = ["Asked", "Intention", "Life"]


PARTIAL_EVERY_S = 0.5
"""How often the text of a streamed call is saved, in seconds."""


class Asked(NamedTuple):
    """A model that is asked, and the names of those that could be asked in its stead, the best first."""

    model: BoundModel
    others: tuple[str, ...] = ()


class Intention:
    """What the caller wants of this life of the run."""

    __slots__ = (
        "accept_plan_change",
        "asynchronous",
        "died",
        "on_doubt",
        "prompt",
        "recover",
        "settings",
        "stream",
        "system_prompt",
    )

    def __init__(
        self,
        *,
        prompt: str | None,
        system_prompt: str | None,
        settings: dict[str, Any],
        recover: bool = False,
        asynchronous: bool = False,
        stream: bool = False,
        on_doubt: str = "repeat",
        accept_plan_change: bool = False,
        died: bool = False,
    ) -> None:
        self.prompt = prompt
        self.system_prompt = system_prompt
        self.settings = settings
        self.recover = recover
        self.asynchronous = asynchronous
        self.stream = stream
        self.on_doubt = on_doubt
        self.accept_plan_change = accept_plan_change
        self.died = died


class Life:
    """What the engine and its phases share: records go in by :meth:`emit` and out by :meth:`flush`."""

    def __init__(self, state: State, plan: Plan, want: Intention, clock: Clock) -> None:
        self.state = state
        self.plan = plan
        self.want = want
        self.clock = clock
        self.budget = Budget.of(want.settings.get("budget"))
        self.limits = msgspec.convert(want.settings.get("limits", {}), Limits)
        self.change: Change | None = None
        """What the next append changes in the run's entry."""
        self._pending: list[Record] = []
        self._lessons: list[Attempt] = []
        self.asked: dict[str, Asked] = {}
        """The model that each part's last call went to."""
        self.looks: dict[int, int] = {}
        """How often what became of an open call was looked up in vain."""
        self._models: dict[Any, BoundModel] = {}
        self._twins: dict[int, BoundModel] = {}
        """Those of them that go through their provider's batches, by the model's identity."""
        self._keys = 0
        self._durability: Any = want.settings.get("durability", "step")

    def emit(self, record: Record) -> int:
        """Fold a record in; it becomes durable with the next flush. Returns its number."""
        seq = self.state.next_seq
        self.state.apply(record)
        self._pending.append(record)
        return seq

    def next_key(self) -> int:
        """A name for a call that has no intent; intents have their record's number, from 0 up."""
        self._keys -= 1
        return self._keys

    def flush(self, *, force: bool = False) -> Generator[Effect, Any, None]:
        """Make durable what waits, where the durability chosen for this step asks for it now."""
        if self._pending and (force or self._is_due()):
            records, self._pending = self._pending, []
            change, self.change = self.change, None
            yield Append(records, change)
            if self._lessons:
                lessons, self._lessons = self._lessons, []
                yield Learn(lessons)

    def _is_due(self) -> bool:
        mode = self._durability
        if isinstance(mode, dict):
            step = OPERATION_TABLE[self.state.position.operation].reaches
            mode = cast("dict[str, str]", mode).get(step, "step")
        # That a run was accepted, and whose it is, is durable before its first call in every mode.
        if mode == "step" or len(self._pending) == self.state.next_seq:
            return True
        if mode == "iteration":
            return self.state.position.operation == "generation" and not self.state.attempts
        return False

    def open_models(self) -> None:
        """Open all models of the plan that are known before they are asked. Raises UsageError."""
        own = (model for part in self.plan.all_parts() for model in part.models)
        for bound in [self._bound(model) for model in (None, *own)]:
            for one in bound.models:
                self._bound(one)

    def model_for(self, model: Any) -> Asked:
        """The model of a request: the part's own, else what recovery set, else the chain's.

        Of a choice among models it is the first, or the one that stands in for it.
        """
        bound = self._bound(self.chosen(self.state.parameters.get("model")) if model is None else model)
        choice = {name_of_model(one): one for one in bound.models}
        name = next(iter(choice), bound.name)
        instead: dict[str, str] = self.state.parameters.get("models", {})
        for _ in range(len(instead)):  # no longer, should a user's own go round in circles
            name = instead.get(name, name)
        if name != bound.name:
            bound = self._bound(choice.get(name, name))
        names = tuple(choice)
        return Asked(bound, names[names.index(name) + 1 :] if name in choice else ())

    def chosen(self, model: Any) -> Any:
        """What recovery has set as the chain's model: at the same provider with the same settings.

        Its key and its address are the live chain's, in whatever way these were given.
        """
        key = ("chosen", model) if isinstance(model, str) else None
        if key is None or key in self._models:
            return model if key is None else self._models[key]
        for one in (self.plan.model, *map(self._as_given, self.plan.model.models)):
            if one.sibling is not None and model.startswith(f"{one.provider}:"):
                self._models[key] = bind_model(one.sibling(model))
                return self._models[key]
        return model

    def _bound(self, model: Any) -> BoundModel:
        bound = self._as_given(model)
        if not self.state.parameters.get("deferred", self.want.settings.get("deferred")):
            return bound
        twin = self._twins.get(id(bound))
        if twin is None:
            twin = self._twins[id(bound)] = bound.twin()
        return twin

    def _as_given(self, model: Any) -> BoundModel:
        if model is None:
            return self.plan.model
        if isinstance(model, BoundModel):
            return model
        key = model if isinstance(model, str) else id(model)
        bound = self._models.get(key)
        if bound is None:
            bound = self._models[key] = resolve_model(model)
        return bound

    def settler(self, seq: int, intent: Intent) -> BoundModel | None:
        """The model of this plan that can find out what became of an open call."""
        own = (model for part in self.plan.all_parts() for model in part.models)
        chosen = self.chosen(self.state.parameters.get("model"))
        models = [self._bound(None), self._bound(chosen), *(self._bound(model) for model in own)]
        models += [self._bound(one) for bound in models for one in bound.models]
        handle = self.state.handles.get(seq)
        found = (one for one in models if one.name == intent.model and one.can_settle(handle))
        return next(found, None)

    @property
    def hears_s(self) -> float | None:
        """How often, in seconds, the text of a streamed call is saved; None: nothing is streamed."""
        options = self.state.options
        if not (self.want.stream or options.get("stream")):
            return None
        return float(options.get("partial_every_s", PARTIAL_EVERY_S))

    def model_options(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a model call: the run's, overlaid by the request's own."""
        options = {name: value for name, value in self.state.options.items() if name not in ENGINE_OPTIONS}
        return {**options, **own} if own else options
