"""Which mode of attention a recipe means, for one style without a mask."""

from __future__ import annotations

from ldm.control import Inject
from ldm.control.adaptive import AdaptiveInject
from ldm.control.inject import Gamma
from ldm.control.shared import SharedInject
from ldm.control.sources import FeatureSource, Rows
from ldm.workflows.restyle.recipe import Settled


def injection(
    recipe: Settled, content: FeatureSource, style: FeatureSource, gamma: Gamma, rows: Rows | None = None
) -> Inject:
    """StyleID's injection, or the variation of it that a recipe asks for."""
    if recipe.share:
        return SharedInject(content, style, gamma, recipe.T, rows=rows, weight=recipe.share)
    if recipe.adaptive:
        return AdaptiveInject(content, style, gamma, recipe.T, rows=rows, adaptive=recipe.adaptive)
    return Inject(content, style, gamma, recipe.T, rows=rows)
