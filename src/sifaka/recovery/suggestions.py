"""Which settings would help, read from the fault itself: pure functions of the situation (floor 4).

Each returns a :class:`Setting`, or a sentence that says why there is nothing to set. Numbers come from the
provider's message where it states them, else from the settings in force.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sifaka.recovery.situation import Situation
from sifaka.recovery.sizes import length_asked_for, sizes_in

__all__ = [
    "Setting",
    "Suggest",
    "another_model",
    "calmer",
    "fewer_at_once",
    "larger_window",
    "less_answer",
    "less_context",
    "longer_timeout",
    "more_tokens",
    "nearest_model_of_today",
    "partial_results",
    "relaxed_validation",
    "smaller_batch",
    "smaller_work",
    "text_as_asked",
]


class Setting(NamedTuple):
    """Settings that may help: what to set, why, and what is given up for it.

    ``loss`` is the share of the result's value that is given up, ``loses`` says it in words.
    """

    parameters: dict[str, Any]
    why: str
    loss: float = 0.0
    loses: str = ""


Suggest = Callable[[Situation], Setting | str]

MARGIN = 0.9
"""Counting tokens by characters errs: of the room that is stated so much is used."""
CHARS_PER_TOKEN = 4
"""Of English, about."""
TOKENS_MAX = 32_768
"""No answer is suggested to be longer than this many tokens."""
TOKENS_UNSET = 512
"""What an answer is supposed to have had where no ``max_tokens`` was set."""
CONTEXT_LOSS = 0.03
RELAXED_LOSS = 0.3
FALLBACK_LOSS = 0.02
"""Shares of a result's value that shorter context, relaxed checks, another model give up: our judgement."""


# Less of it ----------------------------------------------------------------------------------


def less_context(at: Situation) -> Setting | str:
    """Cut the documents: by as much as the message says is too much, else to half."""
    chars = _context_chars(at)
    if chars < 2:
        return "there are no documents to cut: the prompt itself has to be shorter"
    sizes = sizes_in(at.fault.message)
    if sizes.share is None or sizes.limit is None or sizes.asked is None:
        room, why = chars // 2, "a shorter context fits the model"
    else:
        excess = sizes.asked - sizes.limit * MARGIN
        room = int(chars - excess * CHARS_PER_TOKEN)
        why = (
            f"{sizes.asked:,} of at most {sizes.limit:,} tokens were asked for, the documents are cut to fit"
        )
        if room <= 0:
            # The documents alone are not the excess; without them it may yet fit.
            room, why = 0, f"{why}, to nothing"
    return Setting(
        {"max_context_chars": room},
        why,
        CONTEXT_LOSS,
        f"{chars - room:,} of the {chars:,} characters of documents",
    )


def _context_chars(at: Situation) -> int:
    """How many characters of documents the prompt holds."""
    limit = at.options.get("max_context_chars")
    if limit is None:
        return at.prompt_chars
    return min(int(limit), at.prompt_chars) if at.prompt_chars else int(limit)


def less_answer(at: Situation) -> Setting | str:
    """Ask for a shorter answer, where the room asked for it is what does not fit."""
    sizes, wanted = sizes_in(at.fault.message), at.options.get("max_tokens")
    asked_for = sizes.output or wanted
    if not asked_for or sizes.limit is None or sizes.asked is None:
        return "the message does not say that the room for the answer is too large"
    room = int(sizes.limit - (sizes.asked - int(asked_for)))
    if not 16 <= room < int(asked_for):
        return "a shorter answer alone would not make it fit"
    return Setting({"max_tokens": room}, f"{room:,} tokens are left for the answer")


def smaller_work(at: Situation) -> Setting | str:
    """Ask for half as long an answer, or give it half of the documents: quicker done."""
    tokens = at.options.get("max_tokens")
    if tokens and int(tokens) >= 512:
        return Setting(
            {"max_tokens": int(tokens) // 2}, "a shorter answer is written sooner", 0.02, "half of the room"
        )
    return _half_of_the_documents(at, "less to read is answered sooner")


def _half_of_the_documents(at: Situation, why: str) -> Setting | str:
    chars = _context_chars(at)
    if chars < 2:
        return "there is nothing to make smaller: no max_tokens of 512 or more is set, no document is there"
    parameters = {"max_context_chars": chars // 2}
    return Setting(parameters, why, CONTEXT_LOSS, f"half of the {chars:,} characters of documents")


def smaller_batch(at: Situation) -> Setting | str:
    """One part at a time, and half of the documents."""
    half = _half_of_the_documents(at, "")
    if isinstance(half, str):
        if at.options.get("batch_size") == 1:
            return "one part runs at a time already, and there are no documents to cut"
        return Setting({"batch_size": 1}, "one at a time needs less memory")
    return half._replace(
        parameters={"batch_size": 1, **half.parameters}, why="smaller pieces need less memory"
    )


def fewer_at_once(at: Situation) -> Setting | str:
    """Half as many parts at once."""
    running = min(int(at.options.get("batch_size") or at.together), at.together)
    if running < 2:
        return "only one call was made at a time"
    return Setting({"batch_size": running // 2}, "fewer calls at once stay below the rate limit")


# More of it ----------------------------------------------------------------------------------


def longer_timeout(at: Situation) -> Setting | str:
    """Twice the time."""
    limit = at.options.get("timeout_s")
    if limit is None:
        return "no timeout_s is set: the limit is not the run's"
    return Setting({"timeout_s": float(limit) * 2}, "a longer limit lets slow answers arrive")


def more_tokens(at: Situation) -> Setting | str:
    """Twice the room for the answer."""
    tokens = int(at.options.get("max_tokens") or TOKENS_UNSET)
    if tokens >= TOKENS_MAX:
        return f"the answer may already have {tokens:,} tokens"
    return Setting({"max_tokens": min(tokens * 2, TOKENS_MAX)}, "more room lets the text end")


def text_as_asked(at: Situation) -> Setting | str:
    """Room for a text as long, or as short, as the verdict asks."""
    asked = length_asked_for(at.fault.message)
    if asked is None:
        return "the verdict asks for nothing that a setting could change"
    tokens = at.options.get("max_tokens")
    if asked.bound == "at least":
        room = round(asked.tokens * 1.5)
        if tokens is None or int(tokens) >= room:
            return "there is room enough for a text of that length"
    else:
        room = max(16, asked.tokens)
        if tokens is not None and int(tokens) <= room:
            return "there is no room for a longer text already"
    why = f"the verdict asks for {asked.bound} {asked.number:,} {asked.unit}"
    return Setting({"max_tokens": min(room, TOKENS_MAX)}, why)


# Otherwise -----------------------------------------------------------------------------------


def calmer(at: Situation) -> Setting | str:
    """Half the temperature."""
    temperature = at.options.get("temperature")
    if not temperature:
        return "no temperature is set that could be lower"
    return Setting({"temperature": round(float(temperature) / 2, 3)}, "a lower temperature keeps to the form")


_MAY_RELAX = "only where you allow it: with_options(may_relax=True)"


def partial_results(at: Situation) -> Setting | str:
    """Keep a text that was cut off, where the user allows it."""
    if not at.options.get("may_relax"):
        return f"keeping a text that was cut off gives up quality: {_MAY_RELAX}"
    if at.options.get("allow_partial_results"):
        return "texts that were cut off are kept already"
    parameters = {"allow_partial_results": True}
    return Setting(parameters, "a text that was cut off may do", RELAXED_LOSS, "the end of the text")


def relaxed_validation(at: Situation) -> Setting | str:
    """Let one validator fewer decide, where the user allows it."""
    if not at.options.get("may_relax"):
        return f"asking less of a text gives up quality: {_MAY_RELAX}"
    strictness = float(at.options.get("validation_strictness", 1.0))
    if at.together < 2 or strictness * at.together <= 1:
        return "there is no second validator that could decide alone"
    fewer = round((strictness * at.together - 1) / at.together, 3)
    parameters = {"validation_strictness": fewer}
    return Setting(parameters, "all but one validator may do", RELAXED_LOSS, "one validator's consent")


# Another model -------------------------------------------------------------------------------


def another_model(at: Situation) -> Setting | str:
    """The next of the models that may be used instead."""
    current = at.asked_model
    others = [name for name in at.fallbacks if name != current]
    if not others:
        return "no other model may be used instead"
    if not current:
        return "which model was asked is not known"
    return Setting({"models": {current: others[0]}}, f"use {others[0]} instead of {current}", FALLBACK_LOSS)


def larger_window(at: Situation) -> Setting | str:
    """The next model that may be used: its window may be larger."""
    found = another_model(at)
    return found if isinstance(found, str) else found._replace(why=f"{found.why}: it may read more at once")


def nearest_model_of_today(at: Situation) -> Setting | str:
    """Today's nearest model where one is retired or misspelt."""
    provider, colon, name = at.asked_model.partition(":")
    said = at.fault.message.lower()
    if not colon or provider == "local":
        return "no provider's list of models is known"
    if "model" not in said and name.lower() not in said:
        return "it is not said that the model is what was not found"
    from sifaka.models.known import nearest_model

    near = nearest_model(provider, name)
    if near is None or near == at.asked_model:
        return f"no model of today is near to {at.asked_model}"
    return Setting({"model": near}, f"{near} is the nearest that is served today", FALLBACK_LOSS)
