"""What is read out of the names of image topics."""

from __future__ import annotations

import pytest

from mtl_perception.topics import base_topic, namespace_of, says_depth, says_rectified


@pytest.mark.parametrize(
    'topic',
    [
        '/a/image_rect',
        '/a/image_rect_color/compressed',
        '/rect/image',
        'image_rect',
        '/zed/rgb/rect/image',
        '/k/image_undistorted',
    ],
)
def test_names_of_rectified_images(topic):
    assert says_rectified(topic)


@pytest.mark.parametrize(
    'topic', ['/a/image_raw', '/director/image', '/a/image_unrectified', '/rectory/image', '/image']
)
def test_names_of_other_images(topic):
    assert not says_rectified(topic)


def test_images_share_their_namespace_with_the_info():
    for topic in ('/a/b/image_raw', '/a/b/image_raw/compressed', '/a/b/camera_info'):
        assert namespace_of(topic) == '/a/b'
    assert namespace_of('/image/compressed') == namespace_of('/camera_info') == ''
    assert base_topic('/a/image/compressed') == '/a/image'


def test_depth_is_told_from_pictures():
    assert says_depth('/camera/aligned_depth_to_color/image_raw')
    assert says_depth('/camera/depth/image_rect_raw')
    assert not says_depth('/camera/color/image_raw')
