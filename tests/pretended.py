"""A GPU that is none: tensors that say they are on cuda:0, and keep their numbers in the memory of the CPU.

`FakeTensorMode` of torch knows devices and shapes, but no numbers, so nothing that looks at one can run with it. Here
a whole reconstruction can. As on a GPU, tensors of the two devices do not mix, other than where one is copied to the
other or indexes it, and NumPy sees none of the GPU's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda", 0)
#: Operations that take tensors of both devices: copies, and elements of a tensor of the GPU by indices of the CPU.
_ACROSS = ("aten::copy_", "aten::_to_copy")
_INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class Pretended(Tensor):
    """What holds the numbers is `inner`, a plain tensor."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        found: Pretended = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=GPU,
        )
        found.inner = inner
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})

    def numpy(self, **options: Any) -> Any:
        raise TypeError(f"can't convert a tensor of {self.device} to numpy {options or ''}")


class PretendedGPU(TorchDispatchMode):
    """With this, device "cuda" is there."""

    def __init__(self) -> None:
        super().__init__()
        # As FakeTensorMode does it, or torch would look for the driver.
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})

    def __enter__(self) -> PretendedGPU:
        torch._C._ensureCUDADeviceGuardSet()
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._before)
        super().__exit__(*raised)


def _carry_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    theirs = [one for one in tensors if isinstance(one, Pretended)]
    others = [one for one in tensors if not isinstance(one, Pretended) and one.ndim]
    indexed = name in _INDEXED and isinstance(args[0], Pretended)
    if theirs and others and name not in _ACROSS and not indexed:
        raise RuntimeError(f"{name}: expected all tensors on one device, found {GPU} and cpu")
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
        there = torch.device(wanted).type == "cuda"
    else:
        there = isinstance(args[0], Pretended) if name == "aten::copy_" else bool(theirs)
    args, kwargs = tree_map(lambda one: one.inner if isinstance(one, Pretended) else one, (args, kwargs))
    with _disable_current_modes():
        found = func(*args, **kwargs)

    def wrapped(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        same = [own for own in theirs if own.inner is one]  # what was changed in place
        return same[0] if same else Pretended(one.resolve_conj())

    return tree_map(wrapped, found) if there else found
