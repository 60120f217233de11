"""Installs the ROS 2 package mtl_perception: modules, programs, models, launch and config files."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'mtl_perception'
SHARED = (
    'launch',
    'config',
    'resource/bundles',
    'resource/report',
    'resource/sample',
    'mtl_perception_msgs/msg',
)


def shared_files() -> list[tuple[str, list[str]]]:
    """Every file below SHARED, for share/mtl_perception; resource/bundles goes to bundles."""
    found: dict[str, list[str]] = {}
    for top in SHARED:
        for path in sorted(p for p in Path(top).rglob('*') if p.is_file()):
            if '__pycache__' not in path.parts:
                folder = path.parent.as_posix().removeprefix('resource/')
                found.setdefault(f'share/{NAME}/{folder}', []).append(path.as_posix())
    return list(found.items())


setup(
    name=NAME,
    version='0.1.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *shared_files(),
    ],
    python_requires='>=3.10',
    install_requires=['numpy', 'onnxruntime', 'opencv-python-headless', 'pyyaml', 'rosbags'],
    zip_safe=True,
    license='Apache-2.0',
    description='Multi-task dense perception for ROS 2',
    extras_require={
        'test': ['pytest'],
        'jpeg': ['simplejpeg'],
        'report': ['plotly'],
        'ray': ['ray'],
    },
    entry_points={
        'console_scripts': [
            'mtl_perception = mtl_perception.commands.cli:main',
            'perception_node = mtl_perception.ros.__main__:main',
        ],
    },
)
