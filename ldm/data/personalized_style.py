"""A few pictures in one style, and sentences with the placeholder that is to stand for it."""

from __future__ import annotations

from ldm.data import personalized


class PersonalizedBase(personalized.PersonalizedBase):
    """As ``ldm.data.personalized.PersonalizedBase``, with sentences about a style."""

    kind = "style"
