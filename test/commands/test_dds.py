"""The shipped Fast DDS profile is used, under the name that this Fast DDS reads."""

from __future__ import annotations

import pytest

from mtl_perception.commands.dds import PROFILE_VARIABLES, profile_settings
from mtl_perception.share import share


@pytest.mark.parametrize(
    ('distro', 'variable'),
    [
        ('humble', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
        ('jazzy', 'FASTRTPS_DEFAULT_PROFILES_FILE'),
        ('kilted', 'FASTDDS_DEFAULT_PROFILES_FILE'),
        ('', 'FASTDDS_DEFAULT_PROFILES_FILE'),  # the wheels, which are Kilted
    ],
)
def test_the_variable_depends_on_the_distribution(distro: str, variable: str) -> None:
    assert profile_settings({'ROS_DISTRO': distro}) == {variable: str(share('config/fastdds.xml'))}


@pytest.mark.parametrize('name', PROFILE_VARIABLES)
def test_the_users_own_profile_wins(name: str) -> None:
    assert profile_settings({name: 'own.xml'}) == {}
    assert profile_settings({name: ''})
