"""``sifaka demo``: a real run on a real model, killed half-way and resumed (floor 9).

* ``writer``: the program of a user: a chain, run in a process of its own.
* ``watch``: that process as its watcher sees it, who follows its log and kills it.
* ``command``: the verb: a first life, a second, a third that has nothing left to do, and what is seen of it.
"""

from __future__ import annotations

from sifaka.cli.demo.command import demo, verb

__all__ = ["demo", "verb"]
