"""``python -m sifaka``: the command line (floor 9)."""

import sys

from sifaka.cli import main

if __name__ == "__main__":
    sys.exit(main())
