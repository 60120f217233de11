"""The TensorRT engine uses nothing that a supported version does not have.

It installs packages, so it runs only where the environment variable MTL_PERCEPTION_TENSORRT_API
is 1; see ``check.py``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(
        os.environ.get('MTL_PERCEPTION_TENSORRT_API') != '1',
        reason='installs packages: set MTL_PERCEPTION_TENSORRT_API=1',
    ),
    pytest.mark.timeout(3600),
]


def test_the_engine_type_checks_against_every_version():
    for tool in ('gcc', 'readelf', 'nm'):
        if shutil.which(tool) is None:
            pytest.skip(f'needs {tool}')
    script = Path(__file__).with_name('check.py')
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count('type-checks') == 3
