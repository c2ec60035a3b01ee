"""Vectors by word, as part of a module's state."""

from __future__ import annotations

from torch import nn

ESCAPED, DOT = "%word%", "%dot%"
TAKEN = {*dir(nn.ParameterDict), *vars(nn.ParameterDict())}


class VectorDict(nn.ParameterDict):
    """A ParameterDict whose keys may be any text.

    torch keeps the entries as attributes, which may have no dot and no name of its own. Such keys, and no others, stand
    in the state dict in another form.
    """

    @staticmethod
    def attribute_of(name: str) -> str:
        """A key as it stands in the state dict."""
        fits = "." not in name and name not in TAKEN
        return name if fits else ESCAPED + name.replace(".", DOT)

    @staticmethod
    def name_of(attribute: str) -> str:
        """What ``attribute_of`` was given."""
        return attribute.removeprefix(ESCAPED).replace(DOT, ".") if attribute.startswith(ESCAPED) else attribute

    def _key_to_attr(self, key: str) -> str:
        return self.attribute_of(key)
