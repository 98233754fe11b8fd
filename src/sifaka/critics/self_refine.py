"""Self-Refine: the model criticises its own text, and improves it with what it said (floor 2).

Madaan et al. 2023, "Self-Refine: Iterative Refinement with Self-Feedback", arXiv 2303.17651: the same
model generates, gives feedback that is specific and actionable, and refines, until its feedback says that
nothing is left to do. All of that is the paper's, the feedback in free text and the words that end it too;
so nothing has to be read as JSON, and every answer will do. Ours: the refinement is the chain's next
iteration, which sees the last feedback where the paper's sees all of it, and the list items of the
feedback are its issues.
"""

from __future__ import annotations

from typing import Any

from sifaka.critics.asking import AskingCritic, Questions
from sifaka.critics.template import checked, filled
from sifaka.errors import ModelError
from sifaka.parts import Reply, Request
from sifaka.thought import CriticFeedback, Thought

__all__ = ["FEEDBACK_PROMPT", "STOP_WORDS", "SelfRefineCritic"]

FEEDBACK_PROMPT = """\
Someone was asked: {prompt}

They wrote:
{text}

Give feedback on this text. Name at most three concrete problems, each on a line of its own that begins
with "- ", and say how to mend each. If the text needs no change, answer only: {stop}
"""
STOP_WORDS = "NO CHANGES NEEDED"


class SelfRefineCritic(AskingCritic):
    """Asks a model (None: the chain's own) for feedback, and stops when it has none.

    ``feedback_prompt`` may hold ``{prompt}``, ``{text}`` and ``{stop}``; ``stop_words`` is what the
    model answers when it is content. ``options`` go to the model, over the chain's own.
    """

    def __init__(
        self,
        model: object = None,
        *,
        feedback_prompt: str = FEEDBACK_PROMPT,
        stop_words: str = STOP_WORDS,
        name: str = "self-refine",
        **options: Any,
    ) -> None:
        super().__init__(model, name, options)
        self.feedback_prompt = checked("feedback_prompt", feedback_prompt, ("prompt", "text", "stop"))
        self.stop_words = stop_words

    def critique(self, thought: Thought) -> Questions:
        """Yields the one request it needs; returns the feedback. Raises ModelError for an empty reply."""
        values = {"prompt": thought.prompt, "text": thought.text, "stop": self.stop_words}
        prompt = filled(self.feedback_prompt, values)
        reply: Reply = yield Request(prompt, options=self._options, model=self.model)
        said = reply.text.strip()
        if not said:
            raise ModelError(f"{self.name} got no feedback from the model", kind="empty_output")
        content = self.stop_words.casefold() in said.casefold()
        issues = () if content else tuple(_issues(said))
        return CriticFeedback(needs_improvement=not content, message=said, issues=issues)


def _issues(said: str) -> list[str]:
    """The lines that are items of a list."""
    lines = (line.strip() for line in said.splitlines())
    return [line.lstrip("-*• ").strip() for line in lines if line[:1] in {"-", "*", "•"}]
