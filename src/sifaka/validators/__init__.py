"""Ready-made validators, each loaded when first used (floor 2).

All but the judge cost nothing and call nobody. They compose with ``&`` and ``|``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sifaka.lazy import names_of

if TYPE_CHECKING:
    from sifaka.validators.base import ReadyValidator, TextValidator
    from sifaka.validators.classifier import ClassifierValidator
    from sifaka.validators.compose import ComposedValidator
    from sifaka.validators.content import ContentValidator
    from sifaka.validators.form import FormatValidator
    from sifaka.validators.function import CallableValidator
    from sifaka.validators.json_text import JSONValidator
    from sifaka.validators.judge import JudgeValidator
    from sifaka.validators.language import LanguageValidator
    from sifaka.validators.length import LengthValidator
    from sifaka.validators.markdown import MarkdownValidator
    from sifaka.validators.readability import ReadabilityValidator
    from sifaka.validators.regex import RegexValidator

_HOME = {
    "CallableValidator": ".function",
    "ClassifierValidator": ".classifier",
    "ComposedValidator": ".compose",
    "ContentValidator": ".content",
    "FormatValidator": ".form",
    "JSONValidator": ".json_text",
    "JudgeValidator": ".judge",
    "LanguageValidator": ".language",
    "LengthValidator": ".length",
    "MarkdownValidator": ".markdown",
    "ReadabilityValidator": ".readability",
    "ReadyValidator": ".base",
    "RegexValidator": ".regex",
    "TextValidator": ".base",
}

__all__ = [
    "CallableValidator",
    "ClassifierValidator",
    "ComposedValidator",
    "ContentValidator",
    "FormatValidator",
    "JSONValidator",
    "JudgeValidator",
    "LanguageValidator",
    "LengthValidator",
    "MarkdownValidator",
    "ReadabilityValidator",
    "ReadyValidator",
    "RegexValidator",
    "TextValidator",
]

__getattr__ = names_of(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
