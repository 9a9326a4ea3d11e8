"""What makes two micrographs look alike, as numbers: serial mathematics on stacks of slices."""
