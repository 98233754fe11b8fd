"""The contract of storage backends: what the engine relies on, as checks that any backend can run (floor 8).

``CONTRACT`` holds all checks; each is called with an :class:`Opener` of an empty store. With a test runner::

    @pytest.mark.parametrize("check", CONTRACT, ids=str)
    def test_contract(check, open_store):
        check(open_store)

and without one: ``print(exercise(new_store))``.
"""

from __future__ import annotations

from sifaka.testing.contract.appending import appending
from sifaka.testing.contract.checks import Check, Opener, Theme, expect, expect_equal
from sifaka.testing.contract.fencing import fencing
from sifaka.testing.contract.hostile import hostile
from sifaka.testing.contract.lasting import lasting
from sifaka.testing.contract.listing import listing
from sifaka.testing.contract.measuring import measuring
from sifaka.testing.contract.owning import owning
from sifaka.testing.contract.racing import racing
from sifaka.testing.contract.reading import reading
from sifaka.testing.contract.removing import removing
from sifaka.testing.contract.report import Broken, Report, exercise
from sifaka.testing.contract.sharing import sharing

__all__ = ["CONTRACT", "Broken", "Check", "Opener", "Report", "Theme", "exercise", "expect", "expect_equal"]

_THEMES = (
    appending, fencing, reading, owning, listing, removing, sharing, measuring, hostile, racing, lasting,
)  # fmt: skip

CONTRACT: tuple[Check, ...] = tuple(check for theme in _THEMES for check in theme)
"""Every promise of the storage hooks, by theme."""
