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
# # How large is large enough?
#
# You will compute a property on the volume, and a larger volume costs more: to make, to mesh, to solve. One that is
# too small gives another answer each time. In between lies the *representative volume*, and this notebook finds its
# size from numbers that one has: it cuts a volume into ever larger pieces, on the workers of a Dask cluster, and
# looks at how much the pieces differ.
#
# Two questions are mixed up easily, and have different answers:
#
# 1. *How large must the volume be* so that its volume fraction, its surface, its property hardly scatter?
# 2. *How much material did the micrograph show?* A volume made from it cannot know more than the image did, however
#    large it is.

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import tutorial
from dask.distributed import Client, LocalCluster
from IPython.display import display

import mcrdist
from mcrdist.analysis.growing import growth
from mcrdist.analysis.volume.minkowski import configurations, functionals
from mcrdist.synthetic import STRUCTURES

SIZE = tutorial.size(192)  # voxels along an edge of the whole volume
out = tutorial.directory()

# %% [markdown]
# ## A cluster
#
# Here the workers are threads of this notebook; where they are makes no difference to what follows. With processes:
# `LocalCluster(n_workers=2)`. On a real cluster, `sbatch --nodes=8 launch/dask.sbatch python mine.py` starts one, and
# `Client()` finds it by `$DASK_SCHEDULER_ADDRESS`; or give the address, `Client("tcp://node1:8786")`.

# %%
cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0")
client = Client(cluster)
print(f"{len(client.scheduler_info()['workers'])} workers")

# %% [markdown]
# ## A volume
#
# A built-in one, whose statistics are known in closed form, so that one can check the answer. For your own, put its
# path: an OME-Zarr (`out/volume.zarr/phase` of a run), a TIFF stack, or npy.

# %%
structure = STRUCTURES["gaussian"]
np.save(out / "volume.npy", structure.draw((SIZE,) * 3, np.random.default_rng(0)))
volume = np.load(out / "volume.npy", mmap_mode="r")  # on disk: pieces of it are read when they are needed
tutorial.cubes({f"{SIZE}³ voxels": volume}, side=3.8)

# %% [markdown]
# `mcrdist analyze` measures the whole of it, on the same workers: a batch of planes or a block a task, so that no
# worker ever holds the volume. (Without `dask.scheduler` it starts workers of its own.)

# %%
analysis = mcrdist.analyze(
    volume={"path": str(out / "volume.npy")},
    dask={"scheduler": cluster.scheduler_address},
    output={"dir": str(out / "analysis")},
)
for row in analysis.rows:
    if row.direction in ("", "x"):
        print(f"{row.statistic:48}{row.direction:2}{row.value:10.4f} {row.unit}")

# %% [markdown]
# ## Pieces that grow
#
# Cut the volume into cubes of one size, measure volume fraction and specific surface of each, and go on with larger
# ones. Every piece is a task; what travels to a worker is where the piece lies, and what comes back are two numbers.


# %%
def measure(path, corner, edge):
    """Volume fraction and specific surface (boundary a unit of volume) of a cube."""
    labels = np.load(path, mmap_mode="r")
    piece = np.asarray(labels[tuple(slice(c, c + edge) for c in corner)]) == 1
    found = functionals(configurations(piece), (1.0, 1.0, 1.0))
    return piece.mean(), found["specific_surface"]


edges = [n for n in (6, 8, 12, 16, 24, 32, 48, 64, 96, 128) if n <= SIZE // 2]
tasks = {
    edge: [
        client.submit(measure, str(out / "volume.npy"), (z, y, x), edge)
        for z in range(0, SIZE - edge + 1, max(edge, SIZE // 6))
        for y in range(0, SIZE - edge + 1, max(edge, SIZE // 6))
        for x in range(0, SIZE - edge + 1, max(edge, SIZE // 6))
    ]
    for edge in edges
}
measured = {edge: np.array(client.gather(futures)) for edge, futures in tasks.items()}
print(f"{sum(map(len, tasks.values()))} pieces of {len(edges)} sizes")

# %%
figure, places = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
whole = functionals(configurations(np.asarray(volume) == 1), (1.0, 1.0, 1.0))
means = (float(np.mean(volume == 1)), whole["specific_surface"])
for axes, number, name in zip(
    places, range(2), ("volume fraction", "specific surface / voxel⁻¹"), strict=True
):
    for edge, values in measured.items():
        axes.plot(np.full(len(values), edge), values[:, number], ".", color="#1f3a5f", alpha=0.25)
    axes.axhline(means[number], color="#d55e00", linewidth=1)
    axes.set(xscale="log", xlabel="edge of the piece / voxels", title=name)
    axes.set_xticks(edges, [str(edge) for edge in edges])
    axes.minorticks_off()
plt.show()

# %% [markdown]
# *What to look at:* a funnel. Small pieces are all pore or all solid; larger ones agree. The line is the whole
# volume.
#
# ## The law behind the funnel
#
# The scatter need not be guessed. For cubes of edge $L$ and volume $V = L^3$, the variance of the volume fraction is
#
# $$\sigma^2(L) = \frac{1}{V} \int \left( S_2(\mathbf r) - \varphi^2 \right)
#   \prod_i \left( 1 - \frac{|r_i|}{L} \right)_{+} \mathrm d\mathbf r
#   \;\longrightarrow\; \varphi\,(1 - \varphi)\,\frac{A_3}{V} .$$
#
# It follows from the two-point correlation, which a reconstruction is held to. The product is the share of the cube
# in which both ends of $\mathbf r$ lie. For large cubes it is one wherever the correlation has not died out, and what
# is left is the *integral range* $A_3 = \int (S_2 - \varphi^2) / (\varphi - \varphi^2)\,\mathrm d\mathbf r$, the
# volume of one independent feature: the piece is worth $V / A_3$ throws of a coin (Matheron; Kanit et al., Int. J.
# Solids Struct. 40, 2003).

# %%
lag = np.arange(-40, 41)  # the correlation has died out there
phi = structure.fraction


def covariance(dimension):
    """S2 - φ² on all lags up to 40 along each axis."""
    lags = np.stack(np.meshgrid(*[lag] * dimension, indexing="ij"), axis=-1)
    return structure.s2(lags) - phi**2


def scatter(covariance, edge):
    """Standard deviation of the volume fraction of pieces of this edge, relative to its mean."""
    volume = float(edge) ** covariance.ndim
    for _ in range(covariance.ndim):  # one axis after the other
        covariance = covariance @ np.maximum(0, 1 - np.abs(lag) / edge)
    return np.sqrt(covariance / volume) / phi


in_space, in_plane = covariance(3), covariance(2)
integral_range = in_space.sum() / (phi - phi**2)
print(f"integral range: {integral_range:.0f} voxels, a cube of {integral_range ** (1 / 3):.1f}")

figure, axes = plt.subplots(figsize=(5.4, 3.8), layout="constrained")
for number, (name, colour) in enumerate((("volume fraction", "#1f3a5f"), ("specific surface", "#e69f00"))):
    enough = [edge for edge in edges if len(measured[edge]) >= 8]
    spread = [measured[edge][:, number].std(ddof=1) / means[number] for edge in enough]
    axes.loglog(enough, spread, "o", color=colour, label=f"{name}, measured")
every = np.unique(np.geomspace(edges[0], max(SIZE, 2 * edges[0]), 40).astype(int))
axes.loglog(
    every, [scatter(in_space, edge) for edge in every], color="#1f3a5f", label="volume fraction, from S₂"
)
axes.loglog(
    every,
    np.sqrt((1 - phi) / phi * integral_range / every**3),
    "--",
    color="gray",
    label="its limit, slope −3/2",
)
axes.set(xlabel="edge / voxels", ylabel="scatter (standard deviation / mean)")
axes.set_xticks(edges, [str(edge) for edge in edges])
axes.minorticks_off()
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *What to look at:* the dark points lie on the dark line: nothing was fitted. The limit is reached late here. This
# material keeps its features at a distance from one another, so dark and light balance within a wavelength, and what
# scatters is the border of a piece, which cuts features in two. The specific surface has a law of its own, with a
# smaller constant.
#
# So turn it around: how large must a piece be for a given error?

# %%
sizes = np.arange(8, 400)
errors = np.array([scatter(in_space, edge) for edge in sizes])
for error in (0.10, 0.05, 0.02, 0.01, 0.005):
    print(
        f"volume fraction to ± {error:5.1%} (one standard deviation): {sizes[errors <= error][0]:4} voxels an edge"
    )

# %% [markdown]
# ## A property: diffusivity
#
# Other properties have laws of their own, which nobody knows beforehand: so measure them. Here it is the effective
# diffusivity $D_\mathrm{eff}/D_0$ of the phase, found by solving $\nabla\cdot(D\,\nabla c) = 0$ between two
# opposite faces of a piece (TauFactor). `mcrdist analyze` has done that above: on eight cubes of each of five edges,
# along all three axes, and on a larger box in the middle.

# %%
found = json.loads((analysis.path / "analysis.json").read_text())["phases"]["1"]["representative"]
display(growth(found, "voxel"))

# %% [markdown]
# *What to look at:* on the right, a dot is a cube, the line their mean, the band one standard deviation, the
# large mark the box in the middle. In small cubes the diffusivity scatters, and its *mean* is wrong as well: a feature
# that reaches from one face to the other lets much through, whether or not it leads anywhere beyond. So a diffusivity
# from a small volume is not merely uncertain.
#
# The edges at which the scatter falls below 5 %, and the answer in a sentence:

# %%
for one in found["answers"]:
    print(one["words"])
print(f"\n{found['headline']}")

# %% [markdown]
# Beside the volume fraction's, the scatter of the diffusivity along x, and what the law $\sigma \propto 1/\sqrt{V}$
# makes of the largest cubes:

# %%
figure, axes = plt.subplots(figsize=(5.4, 3.8), layout="constrained")
for name, colour in (("volume fraction", "#1f3a5f"), ("diffusivity x", "#d55e00")):
    own = [one for one in found["scatters"] if one["quantity"] == name and one["scatter"]]
    edge, spread = np.array([(one["edge"], one["scatter"]) for one in own]).T
    axes.loglog(edge, spread, "o", color=colour, label=name)
    on = np.geomspace(edge[-1], SIZE, 10)
    axes.loglog(on, spread[-1] * (edge[-1] / on) ** 1.5, "--", color=colour)
axes.axhline(0.05, color="gray", linewidth=0.8)
axes.set(xlabel="edge / voxels", ylabel="scatter (standard deviation / mean)")
ticks = sorted({one["edge"] for one in found["scatters"]} | {SIZE})
axes.set_xticks(ticks, [str(edge) for edge in ticks])
axes.minorticks_off()
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *What to look at:* how far apart the two lie: for the same error, the diffusivity needs a larger volume. Nearer to the
# percolation threshold, that of thin pores for example, it needs a far larger one.
#
# ## And the micrograph?
#
# The same law in the plane, with areas. An image is a small sample.

# %%
section = structure.draw((1024, 1024), np.random.default_rng(7))
for side in (64, 128, 256, 512, 1024):
    pieces = section[: 1024 // side * side, : 1024 // side * side].reshape(1024 // side, side, -1, side)
    fractions = pieces.mean(axis=(1, 3)).ravel()
    seen = (
        f", {fractions.size} pieces of one: {fractions.std(ddof=1) / phi:.1%}" if fractions.size > 3 else ""
    )
    print(f"image of {side:4}²: volume fraction to ± {scatter(in_plane, side):.1%}{seen}")

# %% [markdown]
# Compare the two lists: an image of 256² fixes the volume fraction as well as a volume of between fifty and sixty
# voxels an edge. So if one image is all there is, a larger volume makes the *volume* representative of the *image*,
# not of the material. What helps is more images: `micrograph.path=[a.tif,b.tif]` takes the mean of several, and
# reports their spread beside the error.
#
# ## And a reconstruction?
#
# Its planes are all held to one target (Eq. 4 of Seibert et al. 2022), so its pieces differ *less* than those of the
# material. Here is one, beside pieces of the true volume as large:

# %%
edge = max(16, SIZE // 4)
run = mcrdist.reconstruct(
    micrograph=structure.draw((256, 256), np.random.default_rng(1)),
    volume={"size": edge},
    optimizer={"iterations": 100},
    run={"dir": str(out / "run"), "report": False},
    seed=0,
)
true_planes = np.asarray(volume[: SIZE // edge * edge : 2, :edge, :edge]).mean(axis=(1, 2))
own_planes = (run.phase == 1).mean(axis=(1, 2))
print(f"volume fraction of planes of {edge}²:")
print(f"  in the material  {true_planes.mean():.3f} ± {true_planes.std():.3f}")
print(f"  in the volume    {own_planes.mean():.3f} ± {own_planes.std():.3f}")

# %% [markdown]
# So do not read the scatter of a *reconstructed* volume's pieces as that of the material: take it from the law, with
# the micrograph's $S_2$. For the scatter of a property, make several volumes (`seed=0,1,2,3 -m`), from several images
# where you have them.

# %%
client.close()
cluster.close()
