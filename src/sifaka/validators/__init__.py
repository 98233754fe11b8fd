"""Ready-made validators: they cost nothing and call nobody (floor 2)."""

from sifaka.validators.length import LengthValidator
from sifaka.validators.regex import RegexValidator

__all__ = ["LengthValidator", "RegexValidator"]
