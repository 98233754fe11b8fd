"""Parts of other packages, found by their entry points."""

from __future__ import annotations

import sys

import pytest

from sifaka.chain import Chain
from sifaka.errors import PartError
from sifaka.plugins import plugin_names

MODULE = """
class Polite:
    name = "polite"

    def validate(self, thought):
        return "please" in thought.text


class Needy:
    def __init__(self, what):
        self.what = what


class Stern:
    name = "stern"

    def critique(self, thought):
        return {"needs_improvement": False, "message": "stern"}


def library():
    return lambda query: ["a document"]


NUMBER = 7
"""
ENTRY_POINTS = """
[sifaka.validators]
polite = acme_parts:Polite
needy = acme_parts:Needy
missing = acme_parts:Nothing
number = acme_parts:NUMBER

[sifaka.critics]
stern = acme_parts:Stern

[sifaka.retrievers]
library = acme_parts:library
"""


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """An installed package that offers parts."""
    (tmp_path / "acme_parts.py").write_text(MODULE)
    info = tmp_path / "acme_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("acme_parts", None)


def test_parts_of_other_packages_are_used_by_their_names():
    chain = Chain(lambda prompt: "yes, please", "Write.")
    chain.validate_with("polite").improve_with("stern").with_model_retrievers(["library"])
    thought = chain.run()
    assert thought.validation_results[0].passed
    assert thought.critic_feedback[0].message == "stern"
    assert thought.pre_generation_context[0].text == "a document"


def test_what_is_not_offered_is_refused_with_what_is():
    with pytest.raises(PartError, match="missing, needy, number, polite"):
        Chain(lambda prompt: "x", "Write.").validate_with("rude")


@pytest.mark.parametrize(
    ("name", "says"),
    [("needy", "without arguments"), ("missing", "cannot be loaded"), ("number", "no class or function")],
)
def test_an_offer_that_does_not_hold_is_an_error_that_says_so(name, says):
    with pytest.raises(PartError, match=says):
        Chain(lambda prompt: "x", "Write.").validate_with(name)


def test_the_kinds_are_kept_apart():
    assert plugin_names("critic") == ["stern"]
    with pytest.raises(PartError, match="critic named 'polite'"):
        Chain(lambda prompt: "x", "Write.").improve_with("polite")
