"""Data sets, one file each, and how their frames become batches."""
