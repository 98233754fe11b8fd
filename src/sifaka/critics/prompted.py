"""A critic of the user's own: one prompt, one question, the common form of feedback (floor 2)."""

from __future__ import annotations

from typing import Any

from sifaka.critics.asking import AskingCritic, Questions
from sifaka.critics.form import FORM, SCHEMA, Judgement, feedback_of
from sifaka.thought import Thought

__all__ = ["PromptCritic"]


class PromptCritic(AskingCritic):
    """Asks ``prompt`` of a model (None: the chain's own).

    ``prompt`` has to hold ``{text}``, and may hold ``{prompt}`` (the task), ``{verdicts}`` (of the
    validators), ``{documents}`` (what was retrieved) and ``{form}`` (how to answer: ``form``, which is put
    at its end where it has no such place). ``options`` go to the model, over the chain's own. Raises
    PartError for a prompt that cannot be filled.
    """

    def __init__(
        self,
        prompt: str,
        *,
        model: object = None,
        name: str = "prompt-critic",
        form: str = FORM,
        **options: Any,
    ) -> None:
        super().__init__(model, name, options)
        self.prompt = self.template("prompt", prompt)
        self.form = form

    def critique(self, thought: Thought) -> Questions:
        """Yields one request; returns the feedback. Raises ModelError for an answer that cannot be read."""
        reply = yield self.request(self.prompt, thought, self.form, SCHEMA)
        judgement, repaired = self.read(reply, Judgement)
        return feedback_of(judgement, repaired=repaired)
