"""One level of the multigrid after the other, from grey voxels to phases: descent, rounding, flips."""
