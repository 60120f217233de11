"""Multi-task dense perception for ROS 2: one network, many aligned topics.

The runtime. Everything but ``node`` works without ROS; nothing here needs torch.
"""

__version__ = '0.1.0'
