"""Google's Interactions in the background: kept by Google, and looked up by their id (floor 2).

pydantic-ai does not speak this interface; Google's own library does, through the client pydantic-ai holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sifaka.errors import ModelError
from sifaka.models.asking import Ask
from sifaka.models.streams import Ear
from sifaka.parts import Pending

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model as Backend

__all__ = ["Interactions"]

_TAKES = frozenset(
    {"json_schema", "max_tokens", "seed", "stop", "system_prompt", "temperature", "timeout_s", "top_p"}
)

_CONFIG = {
    "max_output_tokens": "max_tokens",
    "seed": "seed",
    "stop_sequences": "stop_sequences",
    "temperature": "temperature",
    "top_p": "top_p",
}
"""Google's generation settings and pydantic-ai's of the same meaning."""

_AT_WORK = frozenset({"in_progress", "queued"})
_ENDS = {
    "completed": "stop",
    "incomplete": "length",
    "budget_exceeded": "length",
    "requires_continuation": "length",
}


class Interactions:
    """Each call is an interaction that works in the background; the answer is always looked up."""

    accepts: frozenset[str] = frozenset()

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s

    def taken(self, names: frozenset[str]) -> frozenset[str]:
        """Fewer options than Google's other interface has."""
        return names & _TAKES

    async def send(
        self, backend: Backend, ask: Ask, ear: Ear | None, call_id: str
    ) -> ModelResponse | Pending:
        """Pending, with the interaction's id."""
        del call_id
        asked = ask.messages[0]
        given: dict[str, Any] = {
            "model": backend.model_name,
            "input": asked.parts[0].content,
            "background": True,
            "store": True,
            "generation_config": {
                theirs: ask.settings[ours] for theirs, ours in _CONFIG.items() if ours in ask.settings
            },
        }
        if asked.instructions:
            given["system_instruction"] = asked.instructions
        if ask.parameters.output_object is not None:
            schema = ask.parameters.output_object.json_schema
            given["response_format"] = {"type": "text", "mime_type": "application/json", "schema": schema}
        made = await _client(backend).create(**{name: one for name, one in given.items() if one != {}})
        if ear is not None:
            ear.first(made.id)
        return self._known(backend, made)

    def later(self, handle: str) -> Pending | None:
        """The work goes on."""
        return Pending(handle, self._poll_s) if handle else None

    async def look_up(
        self, backend: Backend, handle: str, call_id: str, ask: Ask
    ) -> ModelResponse | Pending | None:
        """By the interaction's id."""
        del call_id, ask
        if not handle:
            return None
        try:
            return self._known(backend, await _client(backend).get(handle))
        except Exception as error:
            if getattr(error, "status_code", getattr(error, "code", None)) == 404:
                return None
            raise

    def _known(self, backend: Backend, interaction: Any) -> ModelResponse | Pending:
        if interaction.status in _AT_WORK:
            return Pending(interaction.id, self._poll_s)
        if interaction.status not in _ENDS:
            errors = "; ".join(str(one) for one in interaction.errors or ())
            kind = "server_error" if interaction.status == "failed" else "other"
            said = f"the interaction {interaction.id} ended as {interaction.status}"
            raise ModelError(f"{said}: {errors}" if errors else said, kind=kind)
        return _response(backend, interaction)


def _response(backend: Backend, interaction: Any) -> ModelResponse:
    from pydantic_ai.messages import ModelResponse, TextPart
    from pydantic_ai.usage import RequestUsage

    used = interaction.usage
    usage = RequestUsage()
    if used is not None:
        usage = RequestUsage(
            input_tokens=used.total_input_tokens or 0,
            # What the model thinks is paid as what it writes.
            output_tokens=(used.total_output_tokens or 0) + (used.total_thought_tokens or 0),
        )
    reason: Any = _ENDS[interaction.status]
    return ModelResponse(
        parts=[TextPart(interaction.output_text or "")],
        usage=usage,
        model_name=interaction.model or backend.model_name,
        provider_name=backend.system,
        provider_response_id=interaction.id,
        finish_reason=reason,
    )


def _client(backend: Any) -> Any:
    interactions = backend.client.aio.interactions
    interactions.sdk_configuration.retry_config = None  # one attempt is one request
    return interactions
