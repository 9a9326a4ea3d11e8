"""Voxels that are known before anything is solved for: kept exactly, and joined to the others without a seam."""
