"""The log of a run: its vocabulary, its bytes, and the states it folds to (floor 2)."""
