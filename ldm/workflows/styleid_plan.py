"""StyleID's options under their old path."""

from ldm.workflows.restyle.plan import StyleIDOptions

__all__ = ["StyleIDOptions"]
