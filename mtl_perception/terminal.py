"""What is printed on a terminal that has not all letters."""

from __future__ import annotations

import io
import sys


def spell_out() -> None:
    r"""Print letters that the terminal does not have as escapes, such as ``\xfc``, and never fail.

    So Python does it for what goes to stderr. A terminal without them is one with LANG=C or
    PYTHONIOENCODING=ascii, a pipe of a service, or a log.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')
