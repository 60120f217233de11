"""Many training runs at once, over settings and methods, on Ray Tune; and their tables."""
