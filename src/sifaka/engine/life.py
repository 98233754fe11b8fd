"""What one life of a run has at hand: its state, what is not yet durable, its models and limits (floor 5)."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, cast

import msgspec

from sifaka.clock import Clock
from sifaka.engine.effects import Append, Effect, Learn
from sifaka.engine.options import ENGINE_OPTIONS
from sifaka.engine.plan import BoundModel, Plan, resolve_model
from sifaka.engine.steps import OPERATION_TABLE
from sifaka.log.records import Record
from sifaka.log.state import State
from sifaka.recovery.evidence import Attempt
from sifaka.recovery.limits import Budget, Limits
from sifaka.storage.base import Change

__all__ = ["Intention", "Life"]


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
        on_doubt: str = "repeat",
        accept_plan_change: bool = False,
        died: bool = False,
    ) -> None:
        self.prompt = prompt
        self.system_prompt = system_prompt
        self.settings = settings
        self.recover = recover
        self.asynchronous = asynchronous
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
        self._models: dict[Any, BoundModel] = {}
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

    def model_for(self, model: Any) -> BoundModel:
        """The model of a request: the part's own, else what recovery set, else the chain's."""
        if model is None:
            model = self.state.parameters.get("model")
        if model is None:
            return self.plan.model
        if isinstance(model, BoundModel):
            return model
        key = model if isinstance(model, str) else id(model)
        bound = self._models.get(key)
        if bound is None:
            bound = self._models[key] = resolve_model(model)
        return bound

    def model_options(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a model call: the run's, overlaid by the request's own."""
        options = {name: value for name, value in self.state.options.items() if name not in ENGINE_OPTIONS}
        return {**options, **own} if own else options
