"""What pip and the release tools read: dependencies, versions, programs."""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import mtl_perception

ROOT = Path(__file__).resolve().parents[1]
# Installed under another name than imported.
DISTRIBUTIONS = {'cv2': 'opencv-python-headless', 'yaml': 'pyyaml'}
# Engines beside ONNX Runtime, what one option of one command needs, and what comes with rosbags.
OPTIONAL = {'simplejpeg', 'cuda', 'onnx', 'openvino', 'plotly', 'pycuda', 'tensorrt'}
OPTIONAL |= {'backports', 'compression', 'lz4', 'ray'}


def setup_argument(name: str) -> ast.expr:
    """An argument of setup() in setup.py."""
    calls = [n for n in ast.walk(ast.parse((ROOT / 'setup.py').read_text())) if is_setup(n)]
    return next(k.value for call in calls for k in call.keywords if k.arg == name)


def is_setup(node: ast.AST) -> bool:
    """Whether this is the call of setup()."""
    return isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'setup'


def imported(path: Path) -> set[str]:
    """The packages that a Python file imports from outside, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or '')
    return {name.partition('.')[0] for name in found}


def test_pip_installs_what_is_imported() -> None:
    files = (ROOT / 'mtl_perception').rglob('*.py')
    used = set.union(*(imported(path) for path in files)) - sys.stdlib_module_names
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    ros = {element.text for element in manifest.findall('exec_depend')}
    needed = {DISTRIBUTIONS.get(name, name) for name in used - ros - OPTIONAL}
    assert set(ast.literal_eval(setup_argument('install_requires'))) == needed


def test_package_xml_names_the_ros_packages_that_are_used() -> None:
    files = [*(ROOT / 'mtl_perception').rglob('*.py'), *(ROOT / 'launch').glob('*.py')]
    used = set.union(*(imported(path) for path in files))
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    named = {element.text or '' for element in manifest.findall('exec_depend')}
    ros = {name for name in named if not name.startswith('python3-')}
    # What is used otherwise: ros2 launch, ros2 bag play, and the storage of the sample recording.
    assert ros - used == {'ros2launch', 'ros2bag', 'rosbag2_storage_mcap'}
    messages = {name for name in used if name.endswith(('_msgs', '_interfaces'))}
    assert messages | {'launch', 'launch_ros', 'rclpy'} <= ros


def test_both_packages_have_one_version() -> None:
    manifests = [ROOT / 'package.xml', ROOT / 'mtl_perception_msgs' / 'package.xml']
    versions = {ET.parse(path).getroot().findtext('version') for path in manifests}
    versions.add(ast.literal_eval(setup_argument('version')))
    assert versions == {mtl_perception.__version__}
    assert re.fullmatch(r'\d+\.\d+\.\d+', mtl_perception.__version__), 'bloom takes no other form'
