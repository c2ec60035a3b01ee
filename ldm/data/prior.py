"""Pictures of a subject with pictures of its class beside them (DreamBooth, Ruiz et al. 2023)."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset


class WithPrior(Dataset[dict[str, Any]]):
    """Items {"train": an item of the subject's, "reg": the item of the same number of the class's}.

    As in XavierXiao's code, both are as long as the shorter one and are drawn as pairs. Each half of a batch has the
    same number of pictures, so that the weight of the class is right in the last batch as well.
    """

    def __init__(self, subject: Any, of_class: Any) -> None:
        self.subject, self.of_class = subject, of_class

    def __len__(self) -> int:
        return min(len(self.subject), len(self.of_class))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"train": self.subject[index], "reg": self.of_class[index]}
