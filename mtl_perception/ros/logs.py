"""Whether ROS can write its log files, without which it does not start."""

from __future__ import annotations

import os
from pathlib import Path


def log_problem() -> str:
    """Why ROS cannot write log files, in words; empty if it can.

    The folder is the one of rcl_logging: ``$ROS_LOG_DIR``, else ``log`` of ``$ROS_HOME``, else
    ``~/.ros/log``. It is made if it is not there, as ROS would do.
    """
    named, home = os.environ.get('ROS_LOG_DIR', ''), os.environ.get('ROS_HOME', '')
    text = named or (f'{home}/log' if home else '~/.ros/log')
    if text.startswith('~') and not os.environ.get('HOME'):
        return 'no log files: HOME is not set, and neither is ROS_LOG_DIR'
    folder = Path(text).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f'no log files: {folder}: {error.strerror}'
    if not os.access(folder, os.W_OK | os.X_OK):
        return f'no log files: {folder} cannot be written to'
    return ''
