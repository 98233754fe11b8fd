"""The engine: a pure generator that decides what a run does next, and yields what it wants done (floor 5)."""
