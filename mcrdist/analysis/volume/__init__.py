"""Statistics of whole volumes, block by block, on Dask: each block is a task, and what it returns adds up."""
