"""mcrdist: trustworthy 3-D microstructures from 2-D micrographs, from a laptop to a cluster."""

__version__ = "0.1.0"
