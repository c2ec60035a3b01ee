"""The colours of paint over a picture: a layer for each thing that is meant, each in a colour of its own."""

from __future__ import annotations

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4")
