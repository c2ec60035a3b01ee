"""The page in the browser: ``python app.py``; see docs/app.md."""

from __future__ import annotations

from ldm.commands.app import command

if __name__ == "__main__":
    command()
