"""What to do about a ROS package that cannot be imported, in one sentence."""

from __future__ import annotations

import sys


def missing(error: ImportError) -> str:
    """A sentence for the user: what is missing, and the command that brings it.

    Args:
        error: of an import of a ROS package; of any other module, its own message is kept.

    Raises:
        ImportError: the same, when it is a module of this package that cannot be imported.
    """
    package = (error.name or '').partition('.')[0]
    if package == 'mtl_perception':
        raise error
    if package == 'mtl_perception_msgs':
        # In a clone, the folder of its sources passes for a package, without a file.
        built = getattr(sys.modules.get(package), '__file__', None)
        state = 'is an older one' if built else 'is not built'
        return (
            f'the message package mtl_perception_msgs {state}: it lies inside this one, where '
            'colcon does not look by itself; run colcon build --base-paths src '
            'src/mtl_perception/mtl_perception_msgs in the workspace and source install/setup.bash'
        )
    if package == 'rclpy' or package.endswith('_msgs'):
        return (
            f'the ROS 2 package {package} cannot be imported ({error}); source the setup.bash of '
            'ROS 2, or use ./run'
        )
    return f'the Python package {package or "?"} cannot be imported: {error}'
