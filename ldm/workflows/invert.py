"""Inversion with features under its old path."""

from ldm.workflows.inversion.invert import Inversion, invert_with_features

__all__ = ["Inversion", "invert_with_features"]
