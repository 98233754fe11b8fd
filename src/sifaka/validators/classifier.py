"""A classifier's opinion of a text: anything that works as scikit-learn's do (floor 2).

Nothing of scikit-learn is imported. What is needed is ``predict``, or ``predict_proba`` with ``classes_``,
of a whole pipeline that takes a list of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from sifaka.errors import PartError
from sifaka.thought import ValidationResult
from sifaka.validators.base import TextValidator, verdict

__all__ = ["ClassifierValidator"]


class ClassifierValidator(TextValidator):
    """Passes texts that ``classifier`` puts into one of the ``wanted`` classes.

    With ``predict_proba`` the classes' probabilities are added up, and ``threshold`` of them is enough;
    that sum is the score. With ``predict`` alone it is the class that counts, and the score is 1 or 0.
    ``pure=True`` says that the classifier runs here and costs nothing, so that it may be asked without a
    record before it. An empty text never passes.
    """

    def __init__(
        self,
        classifier: object,
        wanted: object,
        *,
        threshold: float = 0.5,
        pure: bool = False,
        name: str = "classifier",
    ) -> None:
        if not 0 < threshold <= 1:
            raise PartError(f"threshold={threshold}; it is a probability above 0, and at most 1")
        self.name = name
        self.wanted = _listed(wanted)
        self.threshold = threshold
        self.pure = pure
        self._classifier: Any = classifier
        self._probable = callable(getattr(classifier, "predict_proba", None))
        if isinstance(classifier, type) or not (
            self._probable or callable(getattr(classifier, "predict", None))
        ):
            raise PartError(
                f"{classifier!r} is no classifier: it needs a method predict(texts), or predict_proba(texts) "
                "and classes_; pass an instance"
            )
        self._check_classes()

    def _check_classes(self) -> None:
        classes = self._classes()
        if classes is None:
            if self._probable:
                raise PartError("the classifier has predict_proba but no classes_; fit it first")
            return
        unknown = [one for one in self.wanted if one not in classes]
        if unknown:
            raise PartError(f"wanted has {unknown[0]!r}; the classes are {', '.join(map(repr, classes))}")

    def _classes(self) -> list[Any] | None:
        classes: Any = getattr(self._classifier, "classes_", None)
        return None if classes is None else [_plain(one) for one in classes]

    def check(self, text: str) -> ValidationResult:
        """The verdict on ``text``. Raises PartError where the classifier's answer is none."""
        return self._by_probability(text) if self._probable else self._by_class(text)

    def _by_class(self, text: str) -> ValidationResult:
        found = _plain(_only(self._classifier.predict([text]), "predict"))
        asked = _names(self.wanted)
        if found in self.wanted:
            return verdict(True, f"the text is {found}")
        return verdict(False, f"the text is {found}, not {asked}", fix=f"make it {asked}")

    def _by_probability(self, text: str) -> ValidationResult:
        row = [float(one) for one in _only(self._classifier.predict_proba([text]), "predict_proba")]
        classes = self._classes() or []
        if len(row) != len(classes) or not all(0 <= one <= 1.000001 for one in row):
            raise PartError(
                f"predict_proba returned {row} for the classes {classes}; it gives a probability each"
            )
        chances = dict(zip(classes, row, strict=True))
        sure = min(sum(chances[one] for one in self.wanted), 1.0)
        asked = _names(self.wanted)
        if sure >= self.threshold:
            return verdict(True, f"the text is {asked} ({sure:.0%})", score=sure)
        likeliest = max(classes, key=lambda one: chances[one])
        return verdict(
            False,
            f"the text is {asked} with {sure:.0%}, {self.threshold:.0%} is asked for; "
            f"it is likeliest {likeliest} ({chances[likeliest]:.0%})",
            score=sure,
            fix=f"make it more clearly {asked}",
        )


def _listed(wanted: object) -> tuple[Any, ...]:
    if isinstance(wanted, str | bytes) or not isinstance(wanted, Iterable):
        return (_plain(wanted),)
    listed = tuple([_plain(one) for one in cast("Iterable[object]", wanted)])
    if not listed:
        raise PartError("wanted is empty; it names one class or several")
    return listed


def _plain(value: Any) -> Any:
    """A class as Python's own type: numpy's would not be written as they are read."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _only(answer: Any, method: str) -> Any:
    rows: Sequence[Any] = list(answer)
    if len(rows) != 1:
        raise PartError(f"{method} returned {len(rows)} answers for one text")
    return rows[0]


def _names(wanted: Sequence[Any]) -> str:
    return " or ".join(map(str, wanted))
