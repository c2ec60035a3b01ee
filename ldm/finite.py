"""Whether what a model made are numbers at all."""

from __future__ import annotations

from torch import Tensor, nn

from ldm.util import UserError


def check_finite(model: nn.Module, values: Tensor) -> None:
    """Refuse what a model made when some of it is no number: it would be a grey picture, or a wrong one.

    Raises:
        UserError: it names the weight that is to blame, or, without one, the precision.
    """
    if bool(values.isfinite().all()):
        return
    broken = broken_weight(model)
    if broken is not None:
        raise UserError(f"the weights are damaged: '{broken}' holds a value that is not finite (NaN or inf)")
    raise UserError("the model came to values beyond what its precision can hold: --precision full or bf16 would do")


def broken_weight(model: nn.Module) -> str | None:
    """The name of the first weight with a value that is not finite."""
    return next((name for name, weight in model.state_dict().items() if not bool(weight.isfinite().all())), None)
