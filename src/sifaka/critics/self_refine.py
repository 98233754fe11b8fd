"""Self-Refine: the model criticises its own text, and improves it with what it said (floor 2).

Madaan et al. 2023, "Self-Refine: Iterative Refinement with Self-Feedback", arXiv 2303.17651: the same
model generates, gives feedback that is specific and actionable, and refines, until its feedback says
that nothing is left to do. The refinement is the chain's next iteration.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from sifaka.errors import ModelError, PartError
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


class SelfRefineCritic:
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
        self.name = name
        self.feedback_prompt = feedback_prompt
        self.stop_words = stop_words
        try:
            feedback_prompt.format_map({"prompt": "", "text": "", "stop": ""})
        except (KeyError, ValueError, IndexError) as error:
            raise PartError(
                f"feedback_prompt: {error!r}; it may hold {{prompt}}, {{text}} and {{stop}}, and any other "
                "brace is written twice"
            ) from error
        self.model = model
        self._options = options

    def critique(self, thought: Thought) -> Generator[Request, Reply, CriticFeedback]:
        """Yields the one request it needs; returns the feedback. Raises ModelError for an empty reply."""
        values = {"prompt": thought.prompt, "text": thought.text, "stop": self.stop_words}
        prompt = self.feedback_prompt.format_map(values)
        reply = yield Request(prompt, options=self._options, model=self.model)
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
