"""The tasks of a network, one file each."""
