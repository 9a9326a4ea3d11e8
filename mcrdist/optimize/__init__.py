"""Optimisers: they know vectors and a dot product, not microstructures."""
