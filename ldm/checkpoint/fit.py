"""Whether weights and a module belong together, and what to say when they do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ldm.checkpoint.diagnosis import describe_weights
from ldm.util import UserError

# In some files and in some versions of the classes; whoever lacks one loses nothing.
OPTIONAL = re.compile(
    r"(^|\.)(position_ids|attn_mask|num_batches_tracked|quantize\.used|colorize)$|(^|\.)loss\.|"
    r"(^|\.)text_adapters\.|^(model_ema|embedding_manager)\.|^logvar$"
)
_SCHEDULE = re.compile(
    r"^(betas|(sqrt_|log_)?(one_minus_)?alphas_cumprod(_prev)?|sqrt_recip(m1)?_alphas_cumprod|"
    r"posterior_(variance|log_variance_clipped|mean_coef[12])|lvlb_weights|denoiser\.sigmas)$"
)


class LoadReport(NamedTuple):
    """Keys that did not meet their counterpart, apart from those that are known to be optional."""

    missing: list[str]
    unexpected: list[str]


def match_text_model(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's text classes lost the level ``text_model.`` in 2025; rename to what the module has."""
    with_level = {re.sub(r"(^|\.)text_model\.", r"\1", key): key for key in expected if "text_model." in key}
    renamed = {}
    for key, value in given.items():
        if key not in expected:
            shorter = re.sub(r"(^|\.)text_model\.", r"\1", key)
            key = shorter if shorter in expected else with_level.get(key, key)
        renamed[key] = value
    return renamed


def match_conditioner(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file with one text encoder under its older name, for a model whose encoders are in a conditioner."""
    start, place = "cond_stage_model.", "conditioner.embedders.0."
    older = any(key.startswith(start) for key in given) and not any(key.startswith(place) for key in given)
    if not older or not any(key.startswith(place) for key in expected):
        return dict(given)
    return {place + key.removeprefix(start) if key.startswith(start) else key: value for key, value in given.items()}


def keep_precise_schedule(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out schedule tables that a half-precision file has rounded: the constructor computes better ones."""
    return {
        key: value
        for key, value in given.items()
        if not (_is_computed(key, expected) and value.element_size() < expected[key].element_size())
    }


def _is_computed(key: str, expected: Mapping[str, Tensor]) -> bool:
    return _SCHEDULE.match(key) is not None and key in expected and not expected[key].is_meta


def make_report(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> LoadReport:
    """What is missing and what is too much, optional keys and computed schedule tables aside."""
    missing = [k for k in wanted if k not in given and not OPTIONAL.search(k) and not _is_computed(k, wanted)]
    unexpected = [k for k in given if k not in wanted and not OPTIONAL.search(k) and not _SCHEDULE.match(k)]
    return LoadReport(missing, unexpected)


def check_fit(
    origin: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], report: LoadReport, strict: bool
) -> None:
    """Refuse weights that are of another model.

    Raises:
        UserError: other shapes, most keys missing, a parameter without values on the meta device, or any difference
            when ``strict``.
    """
    needed = [key for key in wanted if not OPTIONAL.search(key)]
    reshaped = [key for key in needed if key in given and given[key].shape != wanted[key].shape]
    fatal = [key for key in report.missing if wanted[key].is_meta]
    problems = []
    if reshaped:
        first = reshaped[0]
        problems.append(
            f"{len(reshaped)} of {len(needed)} tensors have another shape, first '{first}' "
            f"{list(given[first].shape)} instead of {list(wanted[first].shape)}"
        )
    if fatal or 2 * len(report.missing) > len(needed) or (strict and report.missing):
        problems.append(f"{len(report.missing)} of {len(needed)} keys are missing ({_first(report.missing)})")
    if report.unexpected and (problems or strict):
        problems.append(f"{len(report.unexpected)} are unexpected ({_first(report.unexpected)})")
    if problems:
        raise UserError(f"{origin} does not fit the configuration: {'; '.join(problems)}{_cause(given, wanted)}")


def _first(keys: list[str], count: int = 2) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")


def _cause(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    looks = describe_weights({key: tuple(value.shape) for key, value in given.items()})
    asks = describe_weights({key: tuple(value.shape) for key, value in wanted.items()})
    if looks and asks and looks != asks:
        return f". The file looks like {looks}, the configuration like {asks}"
    return f". The file looks like {looks}" if looks else ""
