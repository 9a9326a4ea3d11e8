"""Files with the weights of VGG-19: the one in the cache, and those of a user's own.

A file holds `conv1_1.weight`, `conv1_1.bias`, … as `mcrdist.descriptors.vgg` takes them, or the names and
conventions of torchvision, which are converted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mcrdist.descriptors.vgg import BLOCKS, LAYERS, MEAN
from mcrdist.errors import InputError

FILE = "vgg19.safetensors"
#: torchvision's network takes red, green and blue from 0 to 1, less these means, over these deviations.
_TORCHVISION_MEAN = (0.485, 0.456, 0.406)
_TORCHVISION_DEVIATION = (0.229, 0.224, 0.225)


def cached() -> Path:
    """Where `mcrdist weights` keeps the network: below $MCRDIST_CACHE, or the user's directory for caches."""
    own = os.environ.get("MCRDIST_CACHE")
    if own:
        return Path(own).expanduser() / FILE
    from platformdirs import user_cache_path

    return user_cache_path("mcrdist", appauthor=False) / FILE


def load(path: str | os.PathLike[str] | None, key: str = "descriptors.gram.weights") -> dict[str, Tensor]:
    """Return the weights in a file, or in the cache where `path` is None.

    Parameters
    ----------
    path
        A safetensors file, or what ``torch.save`` has written; of the latter tensors are read and nothing else.
    key
        The setting that names the file, for messages.

    Raises
    ------
    InputError
        There is no such file, or it does not hold the sixteen convolutions of VGG-19.
    """
    file = cached() if path is None else Path(path).expanduser()
    if not file.is_file():
        remedy = "run mcrdist weights" if path is None else "give the path of one"
        raise InputError(f"{key}: expected the weights of VGG-19 in {file}, found no such file; {remedy}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader makes of a file that is none of its own
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{key}: expected a safetensors file, or tensors that torch.save has written, found {file} which cannot be "
            f"read as such ({reason}); run mcrdist weights, or give another file"
        ) from None
    return _checked(found, file, key)


def _checked(found: object, file: Path, key: str) -> dict[str, Tensor]:
    if isinstance(found, Mapping) and "features.0.weight" in found:
        names = torchvision_names()
        found = {ours: found[theirs] for theirs, ours in names.items() if theirs in found}
        convert = True
    else:
        convert = False
    for layer in LAYERS:
        for name, shape in (
            (f"{layer.conv}.weight", (layer.outputs, layer.inputs, 3, 3)),
            (f"{layer.conv}.bias", (layer.outputs,)),
        ):
            tensor = found.get(name) if isinstance(found, Mapping) else None
            if not isinstance(tensor, Tensor) or tensor.shape != shape or not tensor.isfinite().all():
                what = f"{list(tensor.shape)} numbers" if isinstance(tensor, Tensor) else "none"
                raise InputError(
                    f"{key}: expected {name} with {list(shape)} finite numbers in {file}, found {what}; it must hold "
                    "the convolutions of VGG-19, with these names or torchvision's"
                )
    assert isinstance(found, Mapping)
    weights = {name: tensor for name, tensor in found.items() if name.startswith("conv")}
    return from_torchvision(weights) if convert else weights


def torchvision_names() -> dict[str, str]:
    """Torchvision's name of every tensor, with ours: ReLUs and poolings are counted there too."""
    names, index = {}, 0
    for block, (count, _) in enumerate(BLOCKS, 1):
        for place in range(1, count + 1):
            for kind in ("weight", "bias"):
                names[f"features.{index}.{kind}"] = f"conv{block}_{place}.{kind}"
            index += 2
        index += 1
    return names


def from_torchvision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network for inputs of blue, green and red from 0 to 255 less `MEAN`."""
    kernel, bias = weights["conv1_1.weight"].to(torch.float64), weights["conv1_1.bias"].to(torch.float64)
    mean, deviation = kernel.new_tensor(_TORCHVISION_MEAN), kernel.new_tensor(_TORCHVISION_DEVIATION)
    ours = kernel.new_tensor(MEAN).flip(0)  # red first, as torchvision has it
    offset = (ours / 255.0 - mean) / deviation
    return {
        **weights,
        "conv1_1.weight": (kernel / (255.0 * deviation[:, None, None]))
        .flip(1)
        .to(torch.float32)
        .contiguous(),
        "conv1_1.bias": (bias + torch.einsum("oikl,i->o", kernel, offset)).to(torch.float32),
    }
