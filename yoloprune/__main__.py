"""`python -m yoloprune`: the command line."""

from __future__ import annotations

from yoloprune.cli import main

if __name__ == "__main__":
    main()
