"""What attention can be made to do for a while: sites, modes, and where their features come from."""

from ldm.control.detail import Detail, SaveResidual, high_pass
from ldm.control.energy import Energy, Excite, Goal, Layout, excite_sites, layout_sites
from ldm.control.features import FeatureStore
from ldm.control.files import CacheError
from ldm.control.inject import Inject
from ldm.control.mix import Mix, MixReport
from ldm.control.observe import AttentionMaps, Observe
from ldm.control.plain import Plain
from ldm.control.regions import Box, Boxes, Mask, Region
from ldm.control.registry import MODES, mode_by_name, modes_from_config, register
from ldm.control.save import Save
from ldm.control.seam import Call, attention_mode
from ldm.control.shares import ShareMap
from ldm.control.sites import LATE_DECODER, Sites, by_resolution, late_decoder, sites
from ldm.control.softmax import logits
from ldm.control.sources import FeatureSource, Joined, Rows

__all__ = [
    "LATE_DECODER",
    "MODES",
    "AttentionMaps",
    "Box",
    "Boxes",
    "CacheError",
    "Call",
    "Detail",
    "Energy",
    "Excite",
    "FeatureSource",
    "FeatureStore",
    "Goal",
    "Inject",
    "Joined",
    "Layout",
    "Mask",
    "Mix",
    "MixReport",
    "Observe",
    "Plain",
    "Region",
    "Rows",
    "Save",
    "SaveResidual",
    "ShareMap",
    "Sites",
    "attention_mode",
    "by_resolution",
    "excite_sites",
    "high_pass",
    "late_decoder",
    "layout_sites",
    "logits",
    "mode_by_name",
    "modes_from_config",
    "register",
    "sites",
]
