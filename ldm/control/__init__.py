"""What attention can be made to do for a while: sites, modes, and where their features come from."""

from ldm.control.detail import Detail, SaveResidual, high_pass
from ldm.control.features import FeatureStore
from ldm.control.files import CacheError
from ldm.control.inject import Inject
from ldm.control.mix import Mix, MixReport
from ldm.control.observe import AttentionMaps, Observe
from ldm.control.plain import Plain
from ldm.control.registry import MODES, mode_by_name, modes_from_config, register
from ldm.control.save import Save
from ldm.control.seam import Call, attention_mode
from ldm.control.shares import ShareMap
from ldm.control.sites import LATE_DECODER, Sites, late_decoder, sites
from ldm.control.softmax import logits
from ldm.control.sources import FeatureSource, Joined, Rows

__all__ = [
    "LATE_DECODER",
    "MODES",
    "AttentionMaps",
    "CacheError",
    "Call",
    "Detail",
    "FeatureSource",
    "FeatureStore",
    "Inject",
    "Joined",
    "Mix",
    "MixReport",
    "Observe",
    "Plain",
    "Rows",
    "Save",
    "SaveResidual",
    "ShareMap",
    "Sites",
    "attention_mode",
    "high_pass",
    "late_decoder",
    "logits",
    "mode_by_name",
    "modes_from_config",
    "register",
    "sites",
]
