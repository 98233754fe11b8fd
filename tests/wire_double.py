"""A provider double that kills who calls it, at a moment of the call that it is told."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sifaka.testing.provider import Answer, Behaviour, ProviderDouble, Received
from sifaka.testing.provider.server import Raw
from sifaka.testing.provider.wire import Sending

FIRST = "Indris sing at dawn and sleep at noon."
SECOND = "Indris sing at dawn, and the ruffed lemurs answer them."
FEEDBACK = "- It leaves out the ruffed lemurs; add them."
JUDGEMENT = (
    '{"issues": ["too short"], "suggestions": ["say more"], "needs_improvement": true, '
    '"message": "It is too short.", "confidence": 0.9}'
)
TEXTS = {FIRST, SECOND, FEEDBACK, JUDGEMENT}

_EVENT_ENDS = b"\n\n\r\n"
_PATIENCE_S = 5.0


def text_for(prompt: str) -> str:
    """What the model answers: the same to the same prompt, always."""
    if "Give feedback on this text" in prompt:
        return FEEDBACK
    if "You are one of several critics" in prompt:
        return JUDGEMENT
    return SECOND if "An earlier draft" in prompt else FIRST


def answer_to(received: Received, look_ups: int = 0) -> Answer:
    """The answer; only the rest of it where the call brings its beginning along."""
    text = text_for(received.prompt)
    messages: list[Any] = received.body.get("messages") or [{}]
    if messages[-1].get("role") == "assistant":
        content = messages[-1]["content"]
        begun = content if isinstance(content, str) else content[0]["text"]
        assert text.startswith(begun), f"it was to go on from {begun!r}"
        text = text[len(begun) :]
    return Answer(text, input_tokens=100, output_tokens=max(1, len(text.split())), look_ups=look_ups)


class KillingDouble(ProviderDouble):
    """Kills the caller once: ``die`` has one of the following, with the number of the request.

    ``received``: before it is billed; ``billed``: after that, before a byte of the reply; ``byte``: after
    ``k`` bytes of the reply; ``event``: after ``k`` events of a stream, as soon as ``seen`` says that the
    caller has saved what it was sent; ``look``: in a look-up, before its reply. Look-ups are counted apart.
    """

    def __init__(self, ledger: Path, *, look_ups: int = 0) -> None:
        super().__init__(self._say, ledger=ledger)
        self.die: dict[str, int] = {}
        self.seen: Callable[[], bool] = lambda: True
        self.killed = self.unsaved = False
        self._look_ups = look_ups
        self._turn = threading.Lock()
        self._posts = self._looks = 0
        self._server.wait = self._hang

    def aim(self, die: dict[str, int]) -> None:
        """Kill the next caller there; requests are counted anew."""
        self.die, self.killed, self.unsaved, self._posts, self._looks = die, False, False, 0, 0

    def _say(self, received: Received) -> Behaviour:
        return answer_to(received, self._look_ups)

    def _answer(self, raw: Raw) -> Sending:
        with self._turn:
            return self._in_turn(raw)

    def _in_turn(self, raw: Raw) -> Sending:
        looks = raw.method != "POST"
        self._looks += looks
        self._posts += not looks
        number, die = self._posts, {} if looks else self.die
        if self.killed:
            die = {}
        if die.get("received") == number:
            return self._kill(raw)
        sending = super()._answer(raw)
        if die.get("billed") == number or (looks and not self.killed and self.die.get("look") == self._looks):
            return self._kill(raw)
        if die.get("byte") == number:
            return self._kill(raw, sending.data[: die["k"]])
        if die.get("event") == number and sending.data.count(_EVENT_ENDS) > die["k"]:
            self._victim = _pid(raw)
            parts = sending.data.split(_EVENT_ENDS)[: die["k"]]
            return Sending(b"".join(part + _EVENT_ENDS for part in parts), "wait")
        return sending

    def _kill(self, raw: Raw, data: bytes = b"") -> Sending:
        """Kill now; with ``data``, when it has been written."""
        self._victim = _pid(raw)
        if data:
            return Sending(data, "wait")
        self._end()
        return Sending(b"", "break")

    def _hang(self) -> None:
        self.unsaved = True
        wait = threading.Event()
        for _ in range(int(_PATIENCE_S / 0.005)):
            if "event" not in self.die or self.seen():
                self.unsaved = False
                break
            wait.wait(0.005)
        self._end()

    def _end(self) -> None:
        self.killed = True
        os.kill(self._victim, signal.SIGKILL)


def _pid(raw: Raw) -> int:
    key = raw.headers.get("x-api-key") or raw.headers.get("authorization", "")
    return int(key.rpartition("pid-")[2])
