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
# # Anisotropic and multi-phase materials
#
# Rolled, drawn, extruded, printed: many materials look different along and across. And many have more than two
# phases: a filler, a matrix and a pore; a grain, a binder and a coating. Both need one thing more than *a first
# reconstruction*: to tell the program which image shows which plane, and which phase touches which.
#
# Equations are those of Seibert et al. (2022).

# %%
import matplotlib.pyplot as plt
import numpy as np
import tutorial

import mcrdist
from mcrdist.descriptors.correlation import two_point
from mcrdist.synthetic import ThresholdedGaussian

SIZE = tutorial.size(48)  # voxels across; along the fibres, half as many more
out = tutorial.directory()

# %% [markdown]
# ## 1. Which image is which plane
#
# Say the material is drawn along x. Then a section *along* the wire shows elongated features, and a section *across*
# it round ones. Three families of planes cut a volume:
#
# | planes normal to | rows run along | columns run along | here they show |
# |---|---|---|---|
# | z | y | x | elongated features, lying along the columns |
# | y | z | x | the same |
# | x | z | y | the cross-section: round features |
#
# Columns are what runs from left to right in an image. The convention holds everywhere: in files, settings and
# arrays, which are indexed `[z, y, x]`. If your image lies the other way round, turn it first (`image.T`).
#
# The two images here are cut from one made-up material, so that they agree with one another. Real ones do not quite,
# and should: the images along and across must share their volume fraction, and what they say about a direction that
# both contain.

# %%
rng = np.random.default_rng(3)
material = ThresholdedGaussian(length=(8.0, 8.0, 24.0), fraction=0.4, waves=0.5)
truth = material.draw((128, 128, 192), rng)
along, across = truth[64], truth[:, :, 96]  # a plane normal to z, and one normal to x
tutorial.show({"along: rows y, columns x": along, "across: rows z, columns y": across}, side=3.4)

# %% [markdown]
# Give the common image first, and the exception by its axis. On the command line:
#
#     mcrdist reconstruct micrograph.path=along.tif micrograph.x.path=across.tif volume.shape=[48,48,72] run.dir=out
#
# The loss is Eq. 3, where every direction has its own target $\mathbf D^{\text{des},x} \ne \mathbf D^{\text{des},y}$:
#
# $$\mathcal L = \sum_i \left\| \tilde{\mathbf D}^x_i - \mathbf D^{\text{des},x} \right\|^2
#   + \sum_j \left\| \tilde{\mathbf D}^y_j - \mathbf D^{\text{des},y} \right\|^2
#   + \sum_k \left\| \tilde{\mathbf D}^z_k - \mathbf D^{\text{des},z} \right\|^2$$

# %%
run = mcrdist.reconstruct(
    micrograph={"image": along, "x": {"image": across}},
    volume={"shape": [SIZE, SIZE, SIZE * 3 // 2]},
    run={"dir": str(out / "fibres")},
    seed=0,
)
tutorial.show(tutorial.middle_planes(run.phase), columns=3, side=3)

# %%
tutorial.cubes({"": run.phase}, side=4)

# %% [markdown]
# *What to look at:* planes normal to z and y are alike, and elongated from left to right. If yours are elongated from
# top to bottom, an image was turned.
#
# The two-point correlation along each axis, got and wanted. Along x it falls three times as slowly; every axis lies
# in two families of planes, and both must agree on it.

# %%
lags = run.targets["z/s2"].shape[1] - 1
planes = {
    "z": (run.phase == 1).astype(float),
    "y": np.moveaxis(run.phase == 1, 1, 0).astype(float),
    "x": np.moveaxis(run.phase == 1, 2, 0).astype(float),
}
figure, places = plt.subplots(1, 3, figsize=(10, 3), sharey=True, layout="constrained")
for axes, (axis, (normal, place)) in zip(
    places,
    {"z": ("y", (slice(None), 0)), "y": ("z", (slice(None), 0)), "x": ("z", (lags, slice(None)))}.items(),
    strict=True,
):
    got = two_point(planes[normal], lags, True).mean(axis=0)[place]
    wanted = run.targets[f"{normal}/s2"][place]
    if axis != "x":  # rows of the window run from -L to L
        got, wanted = got[lags:], wanted[lags:]
    axes.plot(got, label="volume")
    axes.plot(wanted, "--", label="image")
    axes.set(title=f"along {axis}", xlabel="lag / voxels")
places[0].set_ylabel("S₂")
places[0].legend()
plt.show()

# %% [markdown]
# `analyze` boils this down to one length an axis, the integral range: what the correlation
# $(S_2 - \varphi^2)/(\varphi - \varphi^2)$ adds up to along it.

# %%
analysis = mcrdist.analyze(run={"dir": str(run.path)})
for row in analysis.rows:
    if row.statistic in ("integral range of S2", "mean chord", "share that percolates"):
        beside = "" if row.micrograph is None else f"   image {row.micrograph:6.3f}"
        print(f"{row.statistic:24}{row.direction}   volume {row.value:6.3f}{beside}")

# %% [markdown]
# Only the plane normal to x was an image of its own. What if there is *one* image, along the fibres, and nothing
# across? Then an assumption must stand in for it, and you choose which: with `micrograph.path` alone every direction
# gets the same image, and along z and x it contradicts itself, since a direction cannot be long and short at once.
# The error then stays high, and the report shows it. Take the section.
#
# ## 2. Three phases
#
# An image of three labels or more is reconstructed whole. The volume then has one field a phase, which add up to one
# in every voxel whatever the optimiser does, and every phase is held to its own statistics.
#
# The material is made so that it has something to get wrong: grains (2) in a matrix (0), each grain in a coat (1). A
# grain never touches the matrix.

# %%
field = ThresholdedGaussian(length=10.0, waves=0.85).field((192, 192), np.random.default_rng(5))
coated = np.digitize(field, (-0.2, 0.8)).astype(np.uint8)
for label, name in enumerate(("matrix", "coat", "grains")):
    print(f"phase {label}, {name:7} {np.mean(coated == label):.1%}")

# %% [markdown]
# Who touches whom? The share of all neighbours that are unlike, by pair of phases:


# %%
def contacts(volume):
    """The share of the phase boundary that lies between each pair of phases."""
    share = {pair: 0 for pair in ((0, 1), (1, 2), (0, 2))}
    for axis in range(volume.ndim):
        other = np.roll(volume, 1, axis)
        for a, b in share:
            share[a, b] += np.sum((volume == a) & (other == b)) + np.sum((volume == b) & (other == a))
    return {pair: count / sum(share.values()) for pair, count in share.items()}


runs = {
    name: mcrdist.reconstruct(
        micrograph=coated,
        volume={"size": SIZE * 2 // 3},
        descriptors={"cross_correlation": {"weight": weight}},
        optimizer={"iterations": 150},
        run={"dir": str(out / name)},
        seed=0,
    )
    for name, weight in (("each phase alone", 0.0), ("with cross-correlations", 1.0))
}
table = {"micrograph": coated} | {name: run.phase for name, run in runs.items()}
for name, labels in table.items():
    print(f"{name:24}" + "   ".join(f"{a}|{b} {share:6.2%}" for (a, b), share in contacts(labels).items()))

# %%
side = SIZE * 2 // 3
pictures = {"micrograph": coated[:side, :side]}
pictures |= {name: run.phase[side // 2] for name, run in runs.items()}
tutorial.show(pictures, columns=3, side=3)

# %% [markdown]
# *What to look at:* the column 0|2, grains that touch the matrix, which they hardly ever do in the image. The
# cross-correlation $\langle I_a(\mathbf x)\,I_b(\mathbf x + \mathbf r) \rangle$ of two phases $a \ne b$ says where
# one lies as seen from the other, and one voxel away it *is* the contact. Holding it nearly halves the wrong contacts
# here.
#
# It does not make them vanish, and there is a reason to be understood. The indicators of three phases add up to one,
# so $\langle I_0 I_1 \rangle + \langle I_0 I_2 \rangle = \varphi_0 - \langle I_0 I_0 \rangle$, and likewise for the
# other two: three equations for three pairs. What the phases' own correlations say therefore *includes* the contacts
# of three phases, if only they were met exactly; in a small volume that three directions pull at they are met to some
# per cent, and the cross-correlation puts the weight where it is wanted. With four phases there are six pairs and
# four equations: then it is the only one that knows.

# %%
for name, run in runs.items():
    errors = run.summary["errors"]["rounded"]["z"]
    print(f"{name:24}" + "  ".join(f"{key} {error:.2%}" for key, error in errors.items()))
print(
    "volume fractions:",
    {
        label: f"{found['volume_fraction']['rounded']:.1%}"
        for label, found in runs["with cross-correlations"].summary["phases"].items()
    },
)

# %% [markdown]
# If only one of three phases matters (the pore, say), `micrograph.phase=2` reconstructs it against the rest, which
# costs less.
#
# ## What else can differ by direction
#
# * `interpolate.along=z` makes a material that changes from one plane to the next (a gradient of porosity, a
#   coating); *figures of the paper* shows interpolation.
# * `conditioning.path=sem.tif` holds the very micrograph in the volume, exactly.
# * `target.diagonals=true` holds six diagonal directions too, if three do not pin the material down.
