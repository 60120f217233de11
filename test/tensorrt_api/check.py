"""Type-check engines/tensorrt*.py against the real Python API of a TensorRT version, without a GPU.

    python test/tensorrt_api/check.py [PACKAGE==VERSION ...]

In a temporary folder, for each version: NVIDIA's bindings (1 MB from PyPI, not the libraries),
stand-ins for the libraries so that the bindings can be imported (gcc: every function gives null),
type stubs of what they then contain (pybind11-stubgen), and ``mypy --strict`` on the engine with
``import tensorrt`` resolved to those stubs. What the code uses and a version does not have is an
error of mypy. Takes some minutes. Needs gcc, readelf and nm (binutils), a package index, and a
Python that the version has bindings for (10.3.0: up to 3.12). Nothing of NVIDIA's is kept. The
bindings are under NVIDIA's licence: installing them is agreeing to it.

As a test: ``MTL_PERCEPTION_TENSORRT_API=1 python -m pytest test/tensorrt_api``.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

VERSIONS = (
    'tensorrt-cu12-bindings==10.3.0',
    'tensorrt-cu13-bindings==10.16.1.11',
    'tensorrt-cu13-bindings==11.4.0.106',
)
ROOT = Path(__file__).resolve().parents[2]
TOOLS = ('mypy', 'numpy', 'pybind11-stubgen', 'pyyaml')
PIP = ('-q', '--disable-pip-version-check', '--no-input')


def main(versions: list[str]) -> int:
    """Check every version; exit status 1 if one has errors."""
    failed = False
    with tempfile.TemporaryDirectory(prefix='tensorrt_api_') as name:
        folder = Path(name)
        venv.create(folder / 'venv', with_pip=True)
        python = folder / 'venv/bin/python'
        _run(python, '-m', 'pip', 'install', *PIP, *TOOLS)
        for version in versions or VERSIONS:
            errors = check(version, python, folder / version)
            print(f'{version}: {"ERRORS" if errors else "type-checks"}', flush=True)
            print(''.join(f'  {error}\n' for error in errors), end='')
            failed = failed or bool(errors)
    return int(failed)


def check(version: str, python: Path, folder: Path) -> list[str]:
    """The errors of mypy with a version of TensorRT.

    Args:
        version: of a bindings package, as pip takes it.
        python: with ``TOOLS``.
        folder: a new one, for everything that is installed and made.
    """
    bindings = folder / 'bindings'
    _run(python, '-m', 'pip', 'install', *PIP, '--no-deps', '--target', bindings, version)
    (library,) = bindings.glob('tensorrt_bindings/tensorrt*.so')
    make_libraries(library, folder / 'libraries')
    _run(
        *(python, '-m', 'pybind11_stubgen', 'tensorrt_bindings', '--ignore-all-errors'),
        *('-o', folder / 'generated'),
        LD_LIBRARY_PATH=str(folder / 'libraries'),
        PYTHONPATH=str(bindings),
    )
    stubs = folder / 'stubs/tensorrt'
    stubs.mkdir(parents=True)
    # On a robot the module is called tensorrt and gives all names of the extension.
    text = (folder / 'generated/tensorrt_bindings/tensorrt.pyi').read_text()
    text = text.replace('tensorrt_bindings.tensorrt.', '')
    (stubs / '__init__.pyi').write_text(
        f'# mypy: ignore-errors\n{parsable(text)}\n__version__: str\n'
    )
    result = subprocess.run(
        [
            *(python, '-m', 'mypy', '--strict', '--follow-imports=silent'),
            *('--config-file=', '--cache-dir', folder / 'cache', '--python-executable', python),
            *('--disable-error-code=import-not-found', '--disable-error-code=import-untyped'),
            *sorted(ROOT.glob('mtl_perception/engines/tensorrt*.py')),
        ],
        cwd=ROOT,
        env=os.environ | {'MYPYPATH': str(folder / 'stubs')},
        capture_output=True,
        text=True,
    )
    if result.returncode == 0:
        return []
    return (result.stdout + result.stderr).strip().splitlines()


def make_libraries(binding: Path, folder: Path) -> None:
    """Libraries that have what a binding wants from NVIDIA's, all of it giving null."""
    folder.mkdir()
    needed = re.findall(r'NEEDED.*\[(libnv.*?)\]', _run('readelf', '-d', binding))
    undefined = re.findall(
        r'^ +[Uw] (\w+)$', _run('nm', '-D', '--undefined-only', binding), re.MULTILINE
    )
    # Those without a version that is not Python's and not the compiler's.
    wanted = [s for s in undefined if not re.match('_?Py|_ITM|__gmon|__cxa|_Z|__pthread|dl', s)]
    code = ''.join(f'void *{symbol}(void) {{ return 0; }}\n' for symbol in wanted)
    for index, name in enumerate(needed):
        source = folder / f'{name}.c'
        source.write_text(code if index == 0 else 'int nothing;\n')
        _run(
            *('gcc', '-w', '-shared', '-fPIC', f'-Wl,-soname,{name}', source),
            *('-o', folder / name),
        )


def parsable(text: str) -> str:
    """Stubs whose functions with unprintable defaults take and give anything."""
    lines = text.split('\n')
    while True:
        try:
            ast.parse('\n'.join(lines))
            return '\n'.join(lines)
        except SyntaxError as error:
            first = (error.lineno or 1) - 1
            while not re.match(r'\s*def \w+\(', lines[first]):
                first -= 1
            # The signature goes on over lines: up to its docstring or what comes after it.
            last = first + 1
            while not re.match(r'\s*("""|def |@|class )', lines[last]):
                last += 1
            match = re.match(r'(\s*)def (\w+)\(', lines[first])
            assert match is not None
            indent, name = match.groups()
            anything = f'{indent}def {name}(self, *args: typing.Any, **kwargs: typing.Any)'
            body = [] if '"""' in lines[last] else [f'{indent}    ...']
            lines[first:last] = [f'{anything} -> typing.Any:', *body]


def _run(*command: object, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        sys.exit(f'{" ".join(map(str, command[:4]))} ... failed:\n{result.stdout}{result.stderr}')
    return result.stdout


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
