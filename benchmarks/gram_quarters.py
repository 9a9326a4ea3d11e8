"""How far the quarters of a micrograph lie from the whole in their Gram matrices: how well these are known at all.

    python benchmarks/gram_quarters.py [MICROGRAPH …]

Without names, those of `--data`. For each layer the root mean square, over the quarters, of the distance relative to
the whole image's matrix, and `all`: that of the matrices as one vector (Eq. 10). `power` is that of the layer's pixel,
in pixels of the image, that the distances follow best: 1 where the pixels of a map are independent. Needs `mcrdist
weights`. Prints one JSON line a micrograph.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from _experiments import DATA
from numpy.typing import NDArray

from mcrdist.config.descriptors import VGG_DEFAULT
from mcrdist.descriptors.gram import GramMatrices, Vgg19
from mcrdist.imagefile import read
from mcrdist.weightfile import load

Floats = NDArray[np.float64]


def quarters(image: Floats) -> list[Floats]:
    rows, columns = (n // 2 for n in image.shape)
    return [part for half in (image[:rows], image[rows:]) for part in (half[:, :columns], half[:, columns:])]


def distances(gram: GramMatrices, image: Floats) -> tuple[list[float], float]:
    """Of the quarters from the whole, layer by layer and of all."""
    whole = gram.describe(image, False)
    parts = np.stack([gram.describe(part, False) for part in quarters(image)])
    layers = [
        float(np.sqrt(np.mean(np.linalg.norm(own - one, axis=(-2, -1)) ** 2)) / np.linalg.norm(one))
        for own, one in zip(gram.split(parts), gram.split(whole), strict=True)
    ]
    every = float(np.sqrt(np.mean(np.linalg.norm(parts - whole, axis=-1) ** 2)) / np.linalg.norm(whole))
    return layers, every


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("micrographs", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    gram = GramMatrices(Vgg19(load(None)), VGG_DEFAULT)
    for path in arguments.micrographs or sorted(arguments.data.glob("*.npy")):
        pixels = np.asarray(read(path).array)
        if min(pixels.shape) < 128:  # a quarter must show the deepest layer some pixels
            continue
        layers, every = distances(gram, (pixels == pixels.max()).astype(np.float64))
        factors = np.log([layer.factor for layer in gram.layers])
        facts = {
            "micrograph": path.name,
            "layers": {layer.relu: round(one, 3) for layer, one in zip(gram.layers, layers, strict=True)},
            "all": round(every, 3),
            "power": round(float(np.polyfit(factors, np.log(layers), 1)[0]), 2),
        }
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
