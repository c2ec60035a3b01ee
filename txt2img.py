"""Prompts to pictures: ``python txt2img.py --prompt "a red circle on a blue background"``; see docs/sampling.md."""

from __future__ import annotations

from ldm.commands.txt2img import command

if __name__ == "__main__":
    command()
