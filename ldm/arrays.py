"""NumPy's ``.npy`` files: numbers only, and never more memory than the file itself is large."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ldm.util import UserError, atomic_write

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_array(path: str | os.PathLike[str], what: str = "array", records: bool = False) -> NDArray[Any]:
    """The booleans, whole or real numbers of a ``.npy`` file.

    The header is held against the size of the file before memory is taken: a header of a hundred bytes could ask for
    any amount.

    Args:
        what: what the file is called in errors.
        records: they may be in named fields.

    Raises:
        UserError: the file is missing, is no whole ``.npy`` file, or holds something else than numbers.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            shape, _, dtype = _HEADERS[npy.read_magic(file)](file)
            if not _of_numbers(dtype, records) and not dtype.hasobject:
                raise UserError(f"the {what} '{path}' holds no numbers")
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > path.stat().st_size - file.tell():
                raise ValueError("the file is shorter than its header says")
            file.seek(0)
            values: NDArray[Any] = np.load(file, allow_pickle=False)
            return values
    except OSError as error:
        raise UserError(f"cannot read the {what} '{path}': {error.strerror or error}") from error
    except UserError:
        raise
    except Exception as error:  # a damaged header is Python source that may fail in any way
        raise UserError(f"cannot read the {what} '{path}': not a whole .npy file of numbers") from error


def _of_numbers(dtype: np.dtype[Any], records: bool) -> bool:
    fields = [dtype[name].base for name in dtype.names] if records and dtype.names is not None else [dtype]
    return all(field.kind in "biuf" for field in fields)


def write_array(path: Path, values: NDArray[np.generic]) -> None:
    """Write numbers as a ``.npy`` file, whole or not at all.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)
