"""Sentences about the world's scenes in English, Korean and Chinese."""

from ldm.world.sentences.say import (
    LANGUAGES,
    asked,
    figure_wish,
    language_called,
    languages_of,
    say,
    speak,
    wish_for,
)

__all__ = ["LANGUAGES", "asked", "figure_wish", "language_called", "languages_of", "say", "speak", "wish_for"]
