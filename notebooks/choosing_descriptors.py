# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Choosing descriptors
#
# A reconstruction knows of your material what its descriptors say, and nothing else. Two-point correlation and
# variation, the defaults, say a lot: sizes, distances, directions, the amount of boundary. This notebook shows a
# material for which that is not enough, how one notices, and what helps at which price.
#
# It works on single planes (`volume.shape=[96,96]`, Eq. 2 of Seibert et al. 2022), which take seconds, so that one
# can try many things. Do the same with your micrograph before you start a large volume: **what fails in a plane will
# not succeed in space**.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import tutorial

import mcrdist
from mcrdist.weightfile import cached

SIZE = tutorial.size(96)  # pixels along an edge of the planes
out = tutorial.directory()

# %% [markdown]
# ## A material of winding stripes
#
# As block copolymers, spinodal alloys and some eutectics are. Thin features of one width, long, and hardly ever
# broken: that is what must be met.

# %%
micrograph = tutorial.stripes(2 * SIZE)
tutorial.show({"micrograph": micrograph}, side=3.5)

# %% [markdown]
# ## The candidates
#
# The loss adds up what every descriptor's error weighs (Eq. 8 and 9),
# $\sum_s w\,\|\mathbf D(x_s) - \mathbf D^\text{des}\|^2 / \|\mathbf D^\text{des}\|^2$, and a weight of 1 suits most
# images.
#
# * `s2`, `variation`, `volume_fraction` are always on;
# * `lineal_path`: how often does a whole segment of length $n$ lie in one phase? It knows about *connected* along a
#   line;
# * `s3`: three points at a time, in triangles;
# * `patches`: the distribution of small patches, seen through random filters. It needs no network and knows textures;
# * `gram`: Gram matrices $G^l_{pr} = \sum_i F^l_{ip} F^l_{ir}$ of the features $F$ of a network that was trained on
#   photographs (footnote 2): which patterns occur together. It is the strongest and the dearest, and it is left out
#   below unless `mcrdist weights` was run.

# %%
candidates = {
    "S₂, V": {},
    "+ lineal path": {"lineal_path": {"weight": 1.0}},
    "+ S₃": {"s3": {"weight": 1.0}},
    "+ patches": {"patches": {"weight": 1.0}},
}
GRAM = {"gram": {"weight": 1.0, "layers": ["relu1_2", "relu2_2", "relu3_4"]}} if cached().is_file() else {}
if GRAM:
    candidates["+ Gram matrices"] = GRAM

found, seconds = {}, {}
for name, descriptors in candidates.items():
    began = time.perf_counter()
    run = mcrdist.reconstruct(
        micrograph=micrograph,
        volume={"shape": [SIZE, SIZE]},
        target={"periodic": True},  # this image is; others are not
        descriptors=descriptors,
        optimizer={"iterations": 150},
        run={"dir": str(out / name.strip("+ ").replace(" ", "_")), "report": False},
        seed=0,
    )
    found[name], seconds[name] = run.phase[0], time.perf_counter() - began

# %%
tutorial.show({"micrograph": micrograph[:SIZE, :SIZE]} | found, columns=3, side=2.9)

# %% [markdown]
# *What to look at:* whether stripes are broken, whether their width varies, whether there are islands. The first
# plane has the distances and the amount of boundary of the micrograph, and is still another material: its stripes
# pinch, swell and close into islands. Lineal path, S₃ and patches mend a little each. Only the Gram matrices make
# stripes.
#
# ## Judging by what was not asked for
#
# Every result has small errors in its own descriptors: that is what it was optimised for. So measure all of them with
# *one* ruler, which has statistics that most of the candidates were not given. `characterize` measures any image.


# %%
def measured(name, image, periodic=True):
    """All the statistics of an image, by name."""
    descriptors = {
        "s3": {"weight": 1.0},
        "lineal_path": {"weight": 1.0, "length": LAGS},
        "patches": {"weight": 1.0},
    } | GRAM
    where = mcrdist.characterize(
        micrograph=image,
        target={"periodic": periodic, "lags": LAGS},
        descriptors=descriptors,
        run={"dir": str(out / f"ruler_{name.strip('+ ').replace(' ', '_')}")},
    )
    with np.load(where / "targets.npz") as arrays:
        return {key: arrays[f"z/{key}"] for key in ("s2", "variation", *descriptors)}


LAGS = min(16, SIZE // 4)
truth = measured("truth", micrograph)
table = {}
for name, image in found.items():
    own = measured(name, image)
    table[name] = {
        key: np.linalg.norm(own[key] - wanted) / np.linalg.norm(wanted) for key, wanted in truth.items()
    }
print(f"{'E (Eq. 10)':18}" + "".join(f"{key:>13}" for key in truth) + f"{'time':>9}")
for name, errors in table.items():
    print(f"{name:18}" + "".join(f"{error:13.2%}" for error in errors.values()) + f"{seconds[name]:8.1f} s")

# %%
figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
width = 0.8 / len(table)
for number, (name, errors) in enumerate(table.items()):
    axes.bar(
        np.arange(len(errors)) + number * width, [max(e, 1e-4) for e in errors.values()], width, label=name
    )
axes.set_xticks(np.arange(len(truth)) + 0.4 - width / 2, list(truth))
axes.set(yscale="log", ylabel="relative error (Eq. 10)")
axes.legend(fontsize=8, ncols=2)
plt.show()

# %% [markdown]
# Read a column downwards. A descriptor that is *not* in the name of a row and yet small there came for free; one that
# stays large is what that row knows nothing about. And mind the first row: five of its six numbers are some per cent,
# which sounds harmless, and only the last one tells what the eye saw at once. **Small errors of the wrong descriptors
# are no proof**, so look first.
#
# ## Does it carry over to a volume?
#
# One descriptor, in space, at a small size. The time goes with the number of slices, three times the edge, and with
# the cost of an evaluation (the table in README.md, *Choosing descriptors*).

# %%
side = max(16, SIZE // 3)
volumes = {}
for name, descriptors in [(name, candidates[name]) for name in ("S₂, V", "+ lineal path", "+ patches")]:
    run = mcrdist.reconstruct(
        micrograph=micrograph,
        volume={"size": side},
        target={"periodic": True, "lags": min(12, side // 2)},
        descriptors=descriptors,
        optimizer={"iterations": 60},
        run={"dir": str(out / f"volume_{name.strip('+ ').replace(' ', '_')}"), "report": False},
        seed=0,
    )
    volumes[name] = run.phase
tutorial.cubes(volumes, columns=3, side=3.2)

# %% [markdown]
# *What to look at:* the same faults as in the plane, a little more of each, since every voxel lies in three planes
# that must agree.
#
# ## What to take
#
# 1. Start with the defaults, at 64³. Look at the planes.
# 2. They look right: stay. More descriptors cost time and leave less freedom to meet the ones that matter.
# 3. Something is broken, too short, or has islands: try `lineal_path` and `patches`, in a plane first.
# 4. Still wrong, and the pattern is *organised* (lamellae, grain boundaries, networks): Gram matrices,
#    `+experiment=gram`. They join when the others have settled, which makes them bearable in space.
# 5. Features larger than the window of lags: `s2.pooled=[2,4]` looks at slices at half and a quarter of the
#    resolution, for little.
# 6. You know the number that your property depends on? Write it down as [a descriptor of your
#    own](../docs/your_own_descriptor.md), with a weight of 0 at first: then it is only reported, and tells whether
#    the others leave anything for it to do.
#
# Do not tune weights before you have tried 1.
