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
# # A first reconstruction
#
# You have one image of a polished section, and you need a volume: to compute a conductivity, to mesh it, to see how
# the pores hang together. This notebook goes all the way, from the micrograph to a file that other programs read, and
# spends most of its time on the question that matters: *is the volume any good?*
#
# The method is that of Seibert, Raßloff, Ambati and Kästner (2022), and "Eq." below counts theirs. In one sentence: a
# volume is cut into planes, each plane is described by a few statistics, and an optimiser changes the voxels until
# every plane has the statistics of the micrograph. Nothing is trained.

# %%
import matplotlib.pyplot as plt
import numpy as np
import tutorial

import mcrdist
from mcrdist import synthetic

SIZE = tutorial.size(64)  # voxels along an edge of the volume
out = tutorial.directory()

# %% [markdown]
# ## The micrograph
#
# A built-in one, so that the notebook needs no file. For an image of your own, skip this cell and write
# `micrograph="sem.tif"` further down; grey levels are segmented, and the pixel size is read from the file.

# %%
micrograph = synthetic.micrograph("gaussian", (256, 256), seed=1)
tutorial.show({"micrograph, 256 × 256 pixels": micrograph}, side=3.5)
print(f"{micrograph.mean():.1%} of the pixels are phase 1 (dark)")

# %% [markdown]
# ## What the program sees in it
#
# Not the picture, but statistics of it that do not depend on where features happen to lie. The default ones are:
#
# * the **two-point correlation** $S_2(\mathbf r) = \langle I(\mathbf x)\,I(\mathbf x + \mathbf r)\rangle$: throw a
#   stick of length and direction $\mathbf r$ on the image; how often do both of its ends hit phase 1? ($I$ is one in
#   phase 1 and zero elsewhere.) $S_2(0)$ is the volume fraction $\varphi$, and far away, where the ends know nothing
#   of each other, it settles at $\varphi^2$. How fast it falls tells the size of the features, a dip below
#   $\varphi^2$ that they keep a distance;
# * the **variation** $\mathcal V$ (Eq. 5), the mean absolute difference between a pixel and its two neighbours: the
#   amount of phase boundary;
# * the volume fraction itself.
#
# `characterize` computes them and stops there. Do this first with every new image: if the phases are exchanged or the
# threshold is off, you see it here.

# %%
look = mcrdist.characterize(micrograph=micrograph, run={"dir": str(out / "look")})
with np.load(look / "targets.npz") as targets:
    s2, lags = targets["z/s2"], int(targets["lags"])
    print(
        f"volume fraction {targets['z/volume_fraction']:.3f}, variation {targets['z/variation']:.3f} a pixel"
    )
whole = np.concatenate([s2[::-1, :0:-1], s2], axis=1)  # the other half plane: S2(-r) = S2(r)
figure, axes = plt.subplots(figsize=(4.4, 3.5), layout="constrained")
edge = lags + 0.5
image = axes.imshow(whole, extent=(-edge, edge, edge, -edge), cmap="viridis")
axes.set(xlabel="lag across / pixels", ylabel="lag down / pixels", title="S₂ of the micrograph")
figure.colorbar(image)
plt.show()

# %% [markdown]
# *What to look at:* a round spot means that no direction is preferred. The window ends where $S_2$ has settled, which
# the program found by itself.
#
# ## The volume
#
# The settings have the names that they have on the command line, where this cell is
# `mcrdist reconstruct micrograph.path=… volume.size=64 run.dir=… seed=0`. What is minimised is
#
# $$\mathcal L = \sum_s \left\| \tilde{\mathbf D}_s(\tilde{\mathbf M}) - \mathbf D^\text{des} \right\|^2$$
#
# over all slices $s$ normal to z, y and x (Eq. 4 and 9, squared), where $\mathbf D$ collects the statistics above.

# %%
run = mcrdist.reconstruct(
    micrograph=micrograph, volume={"size": SIZE}, run={"dir": str(out / "first")}, seed=0
)
volume = run.phase
print(f"volume {volume.shape}, {np.mean(volume == 1):.1%} of phase 1")

# %% [markdown]
# ## Look first
#
# Planes of all three directions beside a piece of the micrograph of the same size. If you can tell them apart at a
# glance, the statistics miss something that matters to you, however small the errors below are.

# %%
tutorial.show({"micrograph": micrograph[:SIZE, :SIZE]} | tutorial.middle_planes(volume))

# %%
tutorial.cubes({"": volume}, side=3.8)

# %% [markdown]
# The volume is periodic: what leaves it on one side comes in on the other, which simulations like.
#
# ## Then the numbers
#
# The error of a statistic is Eq. 10: the mean over planes of the relative distance from the target,
#
# $$\mathcal E = \frac{1}{n} \sum_s
#   \frac{\lVert \mathbf D_s - \mathbf D^\text{des} \rVert}{\lVert \mathbf D^\text{des} \rVert}.$$
#
# *Relaxed* is the field that the optimiser had, with grey values; *rounded* is the volume of two phases that one
# works with. Only the second counts.

# %%
for kind in ("relaxed", "rounded"):
    for direction, errors in run.summary["errors"][kind].items():
        listed = "  ".join(f"{name} {error:7.3%}" for name, error in errors.items())
        print(f"{kind:8} planes normal to {direction}:  {listed}")

# %% [markdown]
# Is that small? Compare with what the material does by itself: cut pieces as large as the volume's planes out of the
# micrograph, and take the same error of *their* $S_2$. It is the scatter between true sections of this size.

# %%
from mcrdist.descriptors.correlation import two_point

corners = [
    (row, column) for row in range(0, 256 - SIZE + 1, SIZE) for column in range(0, 256 - SIZE + 1, SIZE)
]
pieces = np.stack([micrograph[row : row + SIZE, column : column + SIZE] for row, column in corners])
wanted = run.targets["z/s2"]
lags = wanted.shape[1] - 1
scatter = np.linalg.norm(two_point(pieces.astype(float), lags, False) - wanted, axis=(1, 2)) / np.linalg.norm(
    wanted
)
reached = np.mean([errors["s2"] for errors in run.summary["errors"]["rounded"].values()])
print(
    f"E(S2) of {len(pieces)} pieces of the micrograph: {scatter.mean():.1%}; of the volume's planes: {reached:.1%}"
)

# %% [markdown]
# The planes of the volume are much nearer to the target than true sections of this size would be. That is what is
# asked for in Eq. 4, where every slice has the same target, and worth knowing: the volume is a good representative of
# the mean, and has less scatter from plane to plane than the material.
#
# The same as a curve: the two-point correlation along the rows of z-normal planes, wanted and got, with the closed
# form of the structure that the micrograph was drawn from. The micrograph is one finite sample of that, so its curve
# differs a little, and the volume follows the micrograph.

# %%
planes = (volume == 1).astype(float)
got = two_point(planes, lags, True)[:, lags]  # the row of lag 0 down: lags 0..L across
across = np.stack([np.zeros(lags + 1), np.arange(lags + 1)], axis=-1)

figure, axes = plt.subplots(figsize=(5.2, 3.5), layout="constrained")
axes.fill_between(
    range(lags + 1), *np.quantile(got, [0.05, 0.95], axis=0), alpha=0.3, label="90 % of the planes"
)
axes.plot(got.mean(axis=0), label="volume, mean over planes")
axes.plot(wanted[lags], "--", label="micrograph")
axes.plot(synthetic.STRUCTURES["gaussian"].s2(across), ":", label="closed form")
axes.set(xlabel="lag / voxels", ylabel="S₂")
axes.legend()
plt.show()

# %% [markdown]
# ## Did it converge?
#
# `metrics.jsonl` has a line for every iteration. *Relax* lets voxels be grey; *binarize* puts a growing price on grey
# ones, until hardly any are left to round; *flip* changes single voxels of the rounded volume as long as that helps.

# %%
figure, axes = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
lines = list(enumerate(run.metrics))
for stage in dict.fromkeys(record["stage"] for _, record in lines):
    own = [(number, record["errors"]["s2"]) for number, record in lines if record["stage"] == stage]
    axes.semilogy(*zip(*own, strict=True), ".", label=stage)
axes.set(xlabel="iteration", ylabel="E(S₂)")
axes.legend()
print("relaxing ended because of:", ", ".join(level["stop"] for level in run.summary["levels"]))

# %% [markdown]
# *What to look at:* whether the curve is flat where *relax* ends. It is here, although relaxing went on to its cap
# (300 iterations): more would buy little. If yours still falls, raise `optimizer.iterations`.

# %% [markdown]
# ## What was not asked for
#
# A volume is made to have the statistics above. Whether it may be trusted is told by those that it was *not* made to
# have, so `analyze` puts them beside the micrograph's wherever a plane has them (`pip install '.[analysis]'`).

# %%
analysis = mcrdist.analyze(run={"dir": str(run.path)})
print(f"{'':46}{'volume':>9} {'micrograph':>11}")
for row in analysis.rows:
    if row.micrograph is not None:
        name = f"{row.statistic} {row.direction}".strip()
        print(f"{name:46}{row.value:9.4f} {row.micrograph:11.4f}  {'prescribed' if row.prescribed else ''}")

# %% [markdown]
# *What to look at:* the rows without "prescribed". Chord lengths are the mean widths of the phase along a line; the
# integral of mean curvature says how bulgy its surface is. The specific surface of the volume is counted in thirteen
# directions, that of the image along its rows and columns only; so a difference here is one between the axes, which
# are held, and the diagonals, which are not. If a row that matters for your property is off, add a descriptor that
# holds it: see *choosing descriptors*.
#
# ## Into your own program
#
# ParaView and DAMASK read VTI; `mcrdist export --help` lists the other formats.

# %%
[file] = mcrdist.export(run={"dir": str(run.path)}, format="vti")
print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")
print("and in the run directory:", ", ".join(sorted(path.name for path in run.path.iterdir())))

# %% [markdown]
# `report.html` is one file with all of the above, for your archive or your reviewer.
#
# **Next:** *anisotropic and multi-phase* if your material has a direction or more than two phases; *choosing
# descriptors* if the planes do not look right; *how large is large enough* before you compute a property.
