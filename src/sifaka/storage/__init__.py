"""Where logs are kept: backends behind a few hooks, and what is the same for all of them (floor 3)."""
