"""Engines that would report to their makers, and write into the home folder to do so, must not."""

from __future__ import annotations

import os
import sys


def switch_off() -> None:
    """Before an engine's package is imported: both report that, unless they are told not to."""
    os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
    # OpenVINO goes on without this package; None stands for one that is missing.
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
