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
# From one micrograph to a volume, and how to tell whether the volume is any good. It runs as a script
# (`python notebooks/first_reconstruction.py`) or as a notebook through jupytext.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import mcrdist
from mcrdist import synthetic

out = Path(tempfile.mkdtemp()) / "first"

# %% [markdown]
# ## The micrograph
#
# A built-in one, so that the notebook needs no file. With an image of your own, skip this cell and write
# `micrograph={"path": "sem.tif"}` below.

# %%
micrograph = synthetic.micrograph("gaussian", (256, 256), seed=1)
print(f"{micrograph.shape} pixels, {micrograph.mean():.1%} of phase 1")

# %% [markdown]
# ## The volume
#
# The settings have the names that they have on the command line, where this call is
# `mcrdist reconstruct micrograph.path=… volume.size=64 run.dir=… seed=0`.

# %%
run = mcrdist.reconstruct(micrograph=micrograph, volume={"size": 64}, run={"dir": str(out)}, seed=0)
volume = run.phase
print(f"volume {volume.shape}, {np.mean(volume == 1):.1%} of phase 1")

# %% [markdown]
# ## Look first
#
# Planes of all three directions beside a piece of the micrograph of the same size.

# %%
middle = volume.shape[0] // 2
pictures = {
    "micrograph": micrograph[:64, :64],
    "normal to z": volume[middle],
    "normal to y": volume[:, middle],
    "normal to x": volume[:, :, middle],
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set(title=title, xticks=[], yticks=[])
figure.savefig(out.parent / "planes.png", dpi=150)

# %% [markdown]
# ## Then the numbers
#
# Eq. 10 of Seibert et al. (2022): the mean over planes of the relative distance from the target. *Relaxed* is
# the field of the optimiser, *rounded* the labels that one works with.

# %%
for kind in ("relaxed", "rounded"):
    for direction, errors in run.summary["errors"][kind].items():
        print(f"{kind:8} {direction}  " + "  ".join(f"{name} {error:.2%}" for name, error in errors.items()))

# %% [markdown]
# The two-point correlation along the rows of z-normal planes, wanted and got, with the closed form of the
# structure that the micrograph was drawn from: one finite sample of it, so its curve differs a little.

# %%
lags = int(run.targets["lags"])
wanted = run.targets["z/s2"][lags, :]  # the row of lag 0 down: lags 0..L across
planes = (volume == 1).astype(float)
spectrum = np.abs(np.fft.rfft2(planes)) ** 2
got = np.fft.irfft2(spectrum, s=planes.shape[1:])[:, 0, : lags + 1] / planes[0].size
across = np.stack([np.zeros(lags + 1), np.arange(lags + 1)], axis=-1)

figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
axis.fill_between(
    range(lags + 1), *np.quantile(got, [0.05, 0.95], axis=0), alpha=0.3, label="90 % of the planes"
)
axis.plot(got.mean(axis=0), label="volume, mean over planes")
axis.plot(wanted, "--", label="micrograph")
axis.plot(synthetic.STRUCTURES["gaussian"].s2(across), ":", label="closed form")
axis.set(xlabel="lag / voxels", ylabel="S₂")
axis.legend()
figure.savefig(out.parent / "s2.png", dpi=150)

# %%
print(f"report   {run.report}\npictures {out.parent}")
