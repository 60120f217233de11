"""Multi-task dense perception for ROS 2: one network, many aligned topics.

The runtime. Everything but ``ros`` works without ROS; nothing here needs torch.
"""

__version__ = '0.1.0'


class PerceptionError(Exception):
    """What this package raises on purpose; the message is one sentence, made for the user."""


def one_line(error: BaseException) -> str:
    """What an exception of another library says, for a sentence; its type if it says nothing."""
    return ' '.join(str(error).split()) or type(error).__name__
