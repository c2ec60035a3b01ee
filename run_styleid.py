"""Pictures in the manner of others: ``python run_styleid.py --cnt photo.jpg --sty art.jpg``; see docs/styleid.md."""

from __future__ import annotations

from ldm.commands.styleid import command

if __name__ == "__main__":
    command()
