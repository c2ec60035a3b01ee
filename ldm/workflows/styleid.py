"""StyleID's function under its old path."""

from ldm.workflows.restyle.styleid import styleid

__all__ = ["styleid"]
