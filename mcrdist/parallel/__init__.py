"""Threads, ranks and slabs: who owns which part of a volume, and how the parts meet."""
