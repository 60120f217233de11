"""Change single lines of the packages, one at a time, and see whether a test notices.

    ./run exec python benchmarks/mutants.py [PATTERN...] [--list]

A test that passes with a wrong line proves nothing about it. Every mutant of ``mutants.yaml`` is an
edit of a copy of the packages, run against the tests that are there for it, and printed with what
came of it. With patterns, only mutants whose file or description has one of them. About six
seconds for each, of which four are spent on importing torch; half a minute for those of the node.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix('.yaml')
PACKAGES = ('mtl_perception', 'training/mtl_training')
OURS = (PACKAGES[0], 'launch/')  # what our files begin with; others are the training's
TESTS = (
    'training/test',
    'training/configs',
    'test',
    'resource',
    'launch',
    'config',
    'benchmarks',
    'docs',
    'pyproject.toml',
)
KILLED, SURVIVED = 1, 0  # what pytest exits with


@dataclass(frozen=True)
class Mutant:
    """One edit: of a file, against a file of tests or one test of it, both below the repository."""

    file: str
    tests: str
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f'{self.file}: {self.what}'


def mutants() -> Iterator[Mutant]:
    """Those of ``mutants.yaml``, one by one."""
    for group in yaml.safe_load(TABLE.read_text(encoding='utf-8')):
        file, tests = group['file'], group['tests']
        file = file if file.startswith(OURS) else f'{PACKAGES[1]}/{file}'
        tests = tests if tests.startswith('test/') else f'training/test/{tests}'
        for edit in group['edits']:
            yield Mutant(file, tests, edit['what'], edit['line'], edit['else'])


def run_tests(folder: Path, tests: str) -> int:
    """Run a file of tests on the packages of a folder; what pytest exits with."""
    paths = [str(folder), str(folder / 'training'), os.environ.get('PYTHONPATH', '')]
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', tests]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths), 'PYTHONDONTWRITEBYTECODE': '1'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ).returncode


def judge(folder: Path, mutant: Mutant) -> str:
    """Make the edit in a folder, run the tests, take it back; '' if they noticed."""
    path = folder / mutant.file
    text = path.read_text(encoding='utf-8')
    if text.count(mutant.before) != 1:
        return f'is stale: {mutant.before!r} is {text.count(mutant.before)} times in the file'
    path.write_text(text.replace(mutant.before, mutant.after), encoding='utf-8')
    try:
        code = run_tests(folder, mutant.tests)
    finally:
        path.write_text(text, encoding='utf-8')
    return {KILLED: '', SURVIVED: f'survives {mutant.tests}'}.get(code, f'broke pytest ({code})')


def copy_packages(folder: Path) -> None:
    """Copy what tests need."""
    for name in (*PACKAGES, *TESTS):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(source, target)


def main(argv: Sequence[str] | None = None) -> int:
    """Judge the mutants; 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('patterns', nargs='*', metavar='PATTERN')
    parser.add_argument('--list', action='store_true', help='print them and do nothing')
    args = parser.parse_args(argv)
    chosen = [m for m in mutants() if not args.patterns or any(p in str(m) for p in args.patterns)]
    if args.list:
        print('\n'.join(map(str, chosen)))
        return 0
    noticed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_packages(folder)
        files = dict.fromkeys(m.tests for m in chosen)
        failing = [tests for tests in files if run_tests(folder, tests) != SURVIVED]
        if failing:
            print(f'these fail as they are: {", ".join(failing)}')
            return 1
        for mutant in tqdm(chosen, disable=None):
            verdict = judge(folder, mutant)
            noticed += not verdict
            print(f'{mutant} {verdict or "is noticed"}', flush=True)
    print(f'{noticed} of {len(chosen)} mutants are noticed')
    return 0 if noticed == len(chosen) else 1


if __name__ == '__main__':
    sys.exit(main())
