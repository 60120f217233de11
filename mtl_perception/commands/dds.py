"""The Fast DDS profile with room for images: which variable names it, and whether one is set."""

from __future__ import annotations

from collections.abc import Mapping

from ..share import share

PROFILE = 'config/fastdds.xml'  # see ``share``

# Fast DDS 3, which Kilted has, and Fast DDS 2 read different variables.
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')


def profile_variable(distro: str) -> str:
    """The variable that names a profile.

    Args:
        distro: ``ROS_DISTRO``; empty with the Python wheels, which are Kilted.
    """
    return PROFILE_VARIABLES[distro in ('humble', 'iron', 'jazzy')]


def profile_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to an environment so that the shipped profile is used; nothing if it has one.

    Args:
        environment: as ``os.environ``.
    """
    if any(environment.get(name) for name in PROFILE_VARIABLES):
        return {}
    return {profile_variable(environment.get('ROS_DISTRO', '')): str(share(PROFILE))}
