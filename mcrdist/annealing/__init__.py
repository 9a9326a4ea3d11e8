"""Reconstruction by swaps of voxels (Yeong and Torquato 1998), with an incremental two-point correlation."""
