"""What a person sees of a run, as folds of its log: the one vocabulary of every rendering (floor 5).

* :class:`Timeline`: what happened, one :class:`Moment` a fact, in order.
* :class:`RunSummary`: how the run stands, what its lives paid and kept, what is in doubt, what failed and
  what was done about it.
* :func:`brief`: the same moments in fewer lines.
* :func:`bottlenecks`: where time and money went.

Terminal, page, notebook and JSON are renderings of these: they lay out and colour, and decide nothing.
Texts in them are a model's or a user's own words, as they are: each rendering makes them safe for its medium.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sifaka.lazy import names_of
from sifaka.views.spending import bottlenecks

if TYPE_CHECKING:
    from sifaka.views.condense import brief
    from sifaka.views.models import (
        Cause,
        Check,
        Doubt,
        FaultStory,
        Life,
        Moment,
        Paid,
        RunSummary,
        Timeline,
    )
    from sifaka.views.story import Story, story_of

__all__ = [
    "Cause",
    "Check",
    "Doubt",
    "FaultStory",
    "Life",
    "Moment",
    "Paid",
    "RunSummary",
    "Story",
    "Timeline",
    "bottlenecks",
    "brief",
    "story_of",
]

_HOMES = {
    "brief": "sifaka.views.condense",
    **dict.fromkeys(("Story", "story_of"), "sifaka.views.story"),
    **dict.fromkeys(
        ("Cause", "Check", "Doubt", "FaultStory", "Life", "Moment", "Paid", "RunSummary", "Timeline"),
        "sifaka.views.models",
    ),
}

__getattr__ = names_of(__name__, _HOMES)
