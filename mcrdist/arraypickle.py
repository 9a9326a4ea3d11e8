"""Reading NumPy arrays out of a pickle, and nothing else.

A pickle is a program that may call any function it names. This reader knows three names, those that a NumPy array
consists of in protocols 3 and 4; at any other it stops before anything is called.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # written by NumPy 1
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,  # by NumPy 2
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a reference to something outside is no array")


def load_arrays(content: bytes) -> Any:
    """Return what `content` holds: arrays, and lists, tuples, dicts, numbers and text around them.

    Raises
    ------
    pickle.UnpicklingError
        At the first name that is no part of an array.
    """
    return _ArrayUnpickler(io.BytesIO(content)).load()
