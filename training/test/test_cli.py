"""The command line as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from mtl_training import cli

NEWEST = onnx.defs.onnx_opset_version()
SIZE = 'expected HEIGHTxWIDTH in pixels, each at least 32'
# A command that says what the table of a sweep does.
LOUD = """
def add_arguments(parser): pass
def run(args): print('0.3 ± 0.1')
"""
PROGRAM = """
import sys
from mtl_training import cli
cli.COMMANDS['loud'] = ('loud', 'say something')
sys.exit(cli.main(['loud']))
"""
# Says what onnxruntime is told when it is imported.
WATCHED = """
import os, sys
class Watch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == 'onnxruntime':
            print(os.environ.get('ORT_DISABLE_TELEMETRY'))
sys.meta_path.insert(0, Watch)
import mtl_training.deploy.variants
"""


def test_letters_that_a_terminal_lacks_are_spelt_out(tmp_path: Path) -> None:
    (tmp_path / 'loud.py').write_text(LOUD, encoding='utf-8')
    path = os.pathsep.join([str(tmp_path), *sys.path[1:]])
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM],
        env={**os.environ, 'LANG': 'C', 'PYTHONIOENCODING': 'ascii', 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == '0.3 \\xb1 0.1\n'


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('evaluate --checkpoint C --data D --precision int8', 'nothing with --checkpoint'),
        ('export --checkpoint C --out O --temperature-split train', 'without --temperature'),
        ('export --checkpoint C --out O --calibration D', 'nothing without --precision'),
        ('quantize B --limit 5 --threads 1', '--limit, --threads would do nothing without --data'),
        ('sweep SPACE --out O --reduction 2', '--reduction would do nothing without --asha'),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        ('evaluate --data d --batch-size 0', '--batch-size: expected 1 or more, not 0'),
        ('evaluate --data d --limit -2', '--limit: expected 0 or more, not -2'),
        ('evaluate --data d --limit two', "--limit: invalid int value: 'two'"),
        ('rooms render out --assets a --close 1.1', '--close: expected 0 to 1, not 1.1'),
        ('rooms render out --assets a --close nan', '--close: expected 0 to 1, not nan'),
        ('train c --data d --out o --time-budget -1', '--time-budget: expected 0 or more, not -1'),
        ('export --checkpoint c --out o --range nan 2', '--range: expected 0 or more, not nan'),
        ('sweep s --out o --reduction 1', '--reduction: expected 2 or more, not 1'),
        ('export --checkpoint c --out o --opset 5', f'--opset: expected 17 to {NEWEST}, not 5'),
        ('rooms render out --assets a --size 256', f'--size: {SIZE}, not 256'),
        ('export --checkpoint c --out o --size 256x', f'--size: {SIZE}, not 256x'),
        ('describe tif --backbone swin_tiny --size 31x64', f'--size: {SIZE}, not 31x64'),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(command.split())
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f'error: argument {message}\n')


def test_engines_are_told_not_to_report_before_they_are_imported() -> None:
    environment = {k: v for k, v in os.environ.items() if k != 'ORT_DISABLE_TELEMETRY'}
    done = subprocess.run(
        [sys.executable, '-c', WATCHED],
        env={**environment, 'PYTHONPATH': os.pathsep.join(sys.path[1:])},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == '1\n'
