"""What an answer is worth: accuracy, F1 of each kind, confusions, dangerous answers, waits that were found."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from bench.classifier.labelled import Case


class Answer(NamedTuple):
    """What a contestant says of one case."""

    kind: str
    transient: bool
    retry_after_s: float | None = None


class Score:
    """The answers of one contestant to all cases, in their order."""

    def __init__(self, cases: list[Case], answers: list[Answer]) -> None:
        self.pairs = list(zip(cases, answers, strict=True))
        self.confusion = Counter((case.label, answer.kind) for case, answer in self.pairs)
        self.kinds = sorted({case.label for case in cases})

    @property
    def accuracy(self) -> float:
        """The share of right kinds."""
        return sum(case.label == answer.kind for case, answer in self.pairs) / len(self.pairs)

    @property
    def macro_f1(self) -> float:
        """The mean F1 over the kinds that the cases have: a rare kind weighs as much as a common one."""
        return sum(self.f1(kind)[2] for kind in self.kinds) / len(self.kinds)

    def f1(self, kind: str) -> tuple[float, float, float]:
        """Precision, recall and F1 of one kind; 0 where it was never answered or never right."""
        right = self.confusion[kind, kind]
        answered = sum(n for (_, said), n in self.confusion.items() if said == kind)
        present = sum(n for (label, _), n in self.confusion.items() if label == kind)
        precision = right / answered if answered else 0.0
        recall = right / present if present else 0.0
        return precision, recall, 2 * right / (answered + present) if answered + present else 0.0

    @property
    def dangerous(self) -> list[tuple[Case, Answer]]:
        """What cannot pass and was called passing: such a call is paid again and again."""
        return [(case, answer) for case, answer in self.pairs if answer.transient and not case.may_pass]

    @property
    def timid(self) -> int:
        """How many that would pass were called lasting: each costs one question."""
        return sum(case.may_pass and not answer.transient for case, answer in self.pairs)

    @property
    def waits(self) -> tuple[int, int, int]:
        """Stated waits that were read right, all that are stated, and waits read where none is stated."""
        stated = [(case, answer) for case, answer in self.pairs if case.retry_after_s is not None]
        right = sum(_is_close(case.retry_after_s, answer.retry_after_s) for case, answer in stated)
        invented = sum(
            answer.retry_after_s is not None for case, answer in self.pairs if case.retry_after_s is None
        )
        return right, len(stated), invented


def _is_close(wanted: float | None, found: float | None) -> bool:
    return wanted is not None and found is not None and abs(wanted - found) <= 1e-3 + 1e-6 * wanted
