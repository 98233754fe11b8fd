"""Running the contract without a test runner: each check on a fresh store; a report by theme (floor 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from sifaka.testing.contract.checks import Check, Opener

__all__ = ["Broken", "Report", "exercise"]


class Broken(msgspec.Struct, frozen=True):
    """A promise that was not kept, and how that was seen."""

    theme: str
    name: str
    promise: str
    why: str


class Report(msgspec.Struct, frozen=True):
    """What came of a run of the contract; ``str()`` of it is a line a theme, and what was broken."""

    checks: dict[str, int]
    """How many checks were made, by theme."""
    broken: tuple[Broken, ...]

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken

    def __str__(self) -> str:
        wrong = [one.theme for one in self.broken]
        lines = [
            f"{theme}: {count - wrong.count(theme)} of {count} promises kept"
            for theme, count in self.checks.items()
        ]
        lines += [f"broken: {one.theme}: {one.promise}\n    {one.name}: {one.why}" for one in self.broken]
        return "\n".join(lines)


def exercise(new_store: Callable[[], Opener], checks: Iterable[Check] | None = None) -> Report:
    """Run the checks (None: the whole contract), each on the store that a call of ``new_store`` makes.

    Whatever a check raises is a broken promise; Ctrl-C goes through.
    """
    if checks is None:
        from sifaka.testing.contract import CONTRACT

        checks = CONTRACT
    counts: dict[str, int] = {}
    broken: list[Broken] = []
    for check in checks:
        counts[check.theme] = counts.get(check.theme, 0) + 1
        try:
            check(new_store())
        except Exception as error:  # noqa: BLE001 - a backend may fail with anything
            why = str(error) if isinstance(error, AssertionError) else repr(error)
            broken.append(Broken(check.theme, check.name, check.promise, why))
    return Report(counts, tuple(broken))
