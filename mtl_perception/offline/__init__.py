"""Work on recordings, without a ROS graph: reading, writing, and judging against ground truth."""
