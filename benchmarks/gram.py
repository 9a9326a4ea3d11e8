"""One evaluation of loss and gradient (Gram matrices and V) against its convolutions alone, in the same run.

    python benchmarks/gram.py [--size 64] [--repeats 5] [--threads N] [--layers relu1_2 …]

The floor is every convolution of the network on all slices of the three directions, forwards and back to the slices:
the same shapes, batches, memory layout, library and number of threads, nothing in between. Both are repeated in turn
and the median of the ratios is quoted. Needs `mcrdist weights`. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
from statistics import median

import numpy as np
import torch
from _timing import seconds

from mcrdist.config.descriptors import VGG_DEFAULT
from mcrdist.descriptors.base import SliceGrid
from mcrdist.descriptors.gram import BATCH_PIXELS, GramMatrices, Vgg19
from mcrdist.descriptors.variation import Variation
from mcrdist.descriptors.vgg import Network
from mcrdist.directions import ORTHOGONAL
from mcrdist.objective import Held, Objective
from mcrdist.parallel.comm import Comm
from mcrdist.parallel.slab import Slab
from mcrdist.parallel.threads import Workers, configure
from mcrdist.phases import Phases
from mcrdist.synthetic import micrograph
from mcrdist.weightfile import load


class Convolutions:
    """The convolutions of a stack of square slices, on borders that are there already and hold noise."""

    def __init__(self, network: Network, size: int, batch: int, workers: Workers) -> None:
        self._workers, self._batches, self._calls = workers, -(-size // batch), []
        self.operations = 0
        for layer in network.layers:
            side, inputs = size // layer.factor, 1 if layer.inputs == 3 else layer.inputs
            for channels, others in ((inputs, layer.outputs), (layer.outputs, inputs)):
                kernel = torch.randn(others, channels, 3, 3).contiguous(memory_format=torch.channels_last)
                maps = torch.randn(batch, side + 2, side + 2, channels).permute(0, 3, 1, 2)
                self._calls.append((maps, kernel))
                self.operations += 2 * 9 * channels * others * side**2 * size

    def __call__(self) -> None:
        self._workers.map(self._batch, range(self._batches))

    def _batch(self, number: int) -> None:
        for maps, kernel in self._calls:
            torch.conv2d(maps, kernel)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--layers", nargs="+", default=list(VGG_DEFAULT))
    arguments = parser.parse_args()
    size = arguments.size

    workers = configure(arguments.threads)
    comm = Comm.start("cpu")
    slab = Slab((size, size, size), comm, workers)
    image = (micrograph("gaussian") == 1).astype(np.float64)
    descriptors = [Variation(), GramMatrices(Vgg19(load(None)), arguments.layers)]
    targets = {d.name: d.describe(image, False)[None] for d in descriptors}
    grid = SliceGrid((size, size))
    held = Held((tuple(d.term(targets, d.balance, grid) for d in descriptors),))
    objective = Objective(slab, Phases((1,), workers), dict.fromkeys(ORTHOGONAL, held), comm, workers)
    field = torch.from_numpy(np.random.default_rng(0).random(slab.shape, dtype=np.float32))
    gradient = slab.empty()
    objective(field, gradient)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # before the floor takes its own

    network = descriptors[1].vgg.network(arguments.layers, torch.float32, torch.device("cpu"))
    floor = Convolutions(network, size, max(1, BATCH_PIXELS // size**2), workers)

    def three() -> None:
        for _ in ORTHOGONAL:
            floor()

    three()
    pairs = [(seconds(three), seconds(lambda: objective(field, gradient))) for _ in range(arguments.repeats)]
    print(
        json.dumps(
            {
                "benchmark": "gram",
                "size": size,
                "layers": arguments.layers,
                "threads": workers.count,
                "teraflop": round(floor.operations * len(ORTHOGONAL) / 1e12, 3),
                "convolution_seconds": median(f for f, _ in pairs),
                "evaluation_seconds": median(e for _, e in pairs),
                "ratio": median(e / f for f, e in pairs),
                "memory_gb": round(memory / 1e9, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
