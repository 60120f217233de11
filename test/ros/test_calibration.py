"""CameraInfo messages: matched with images by stamp, and turned into the output grid's."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

pytest.importorskip('sensor_msgs', reason='ROS 2 for Python is not installed')

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from mtl_perception.calibration import (
    CameraInfos,
    camera_model,
    doubts_about,
    is_rectified,
)
from mtl_perception.camera import IDENTITY, CameraError, Letterbox
from mtl_perception.ros.messages import camera_info


def header(stamp: int, frame: str = 'camera') -> Any:
    out = Header(frame_id=frame)
    out.stamp.sec = stamp
    return out


def info(stamp: int = 0, frame: str = 'camera') -> Any:
    """A 640x480 camera whose rectified image has another focal length; a stereo right one."""
    out = CameraInfo(header=header(stamp, frame), width=640, height=480)
    out.distortion_model = 'plumb_bob'
    out.d = [0.1, -0.05, 0.0, 0.0, 0.0]
    out.k = [500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0]
    out.r = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    out.p = [400.0, 0.0, 319.5, -40.0, 0.0, 400.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    return out


def test_the_own_stamp_is_found_among_others() -> None:
    infos = CameraInfos()
    for stamp in (1, 2, 3):
        infos.add(info(stamp))
    match = infos.match(header(2), waited=False)
    assert match.own
    assert match.info.header.stamp.sec == 2
    assert not infos.due(header(2))


def test_the_newest_of_the_same_frame_serves_where_the_own_is_missing() -> None:
    infos = CameraInfos()
    for stamp, frame in ((1, 'camera'), (2, 'camera'), (3, 'another')):
        infos.add(info(stamp, frame))
    match = infos.match(header(9), waited=True)
    assert not match.own
    assert match.info.header.stamp.sec == 2
    match = infos.match(header(9, 'unknown'), waited=True)
    assert match.info is None
    assert match.problem == "no CameraInfo of frame 'unknown', only of 'another', 'camera'"


def of_focal(fx: float, stamp: int, frame: str = 'camera') -> Any:
    out = info(stamp, frame)
    out.k = [fx, *out.k[1:]]
    return out


def test_an_info_of_another_frame_is_not_taken_whatever_its_stamp() -> None:
    infos = CameraInfos()
    for fx, frame in ((100.0, 'left'), (200.0, 'right')):
        infos.add(of_focal(fx, 1, frame))
    for fx, frame in ((200.0, 'right'), (100.0, 'left'), (100.0, '/left')):
        assert infos.match(header(1, frame), waited=False).info.k[0] == fx
    assert infos.due(header(1, 'top'))
    match = infos.match(header(1, 'top'), waited=True)
    assert match.info is None
    assert match.problem.endswith("only of 'left', 'right'")


def test_an_empty_frame_says_nothing() -> None:
    infos = CameraInfos()
    infos.add(of_focal(100.0, 1, ''))
    assert infos.match(header(1, 'left'), waited=False).own
    assert infos.match(header(2, 'left'), waited=False).info is None
    infos.add(of_focal(200.0, 3, 'left'))
    assert infos.match(header(3, ''), waited=False).own
    infos.add(of_focal(300.0, 3, 'right'))
    assert 'share the topic' in infos.match(header(3, ''), waited=False).problem


def test_two_calibrations_of_one_moment_are_a_clash() -> None:
    infos = CameraInfos()
    for _ in range(2):  # the second time they only come again
        infos.add(of_focal(100.0, 1))
    assert infos.match(header(1), waited=False).own
    infos.add(of_focal(200.0, 1))
    match = infos.match(header(1), waited=False)
    assert (match.info, match.own) == (None, False)
    assert 'share the topic' in match.problem
    infos.add(of_focal(100.0, 2))  # the other one of this moment may still come
    assert 'share the topic' in infos.match(header(2), waited=False).problem
    for stamp in range(3, 40):
        infos.add(of_focal(100.0, stamp))
    assert infos.match(header(39), waited=False).own, 'it is over'


def test_calibrations_in_turns_are_a_clash_and_a_zoom_is_not() -> None:
    infos = CameraInfos()
    for stamp, fx in enumerate((100.0, 100.0, 200.0, 300.0, 300.0), 1):
        infos.add(of_focal(fx, stamp))
    assert infos.match(header(99), waited=True).info.k[0] == 300.0
    infos.add(of_focal(100.0, 6))
    match = infos.match(header(99), waited=True)
    assert match.info is None
    assert 'in turns' in match.problem


def test_a_camera_may_be_calibrated_again_and_back() -> None:
    now = 0.0
    infos = CameraInfos(clock=lambda: now)
    for stamp, fx in enumerate((100.0, 200.0, 100.0), 1):
        infos.add(of_focal(fx, stamp))  # by a driver that is started again, and says it once
        now += 60.0
    match = infos.match(header(99), waited=True)
    assert (match.problem, match.info.k[0]) == ('', 100.0)
    infos.add(of_focal(200.0, 3))
    assert 'one stamp' not in infos.match(header(99), waited=True).problem, 'of long ago'
    infos.add(of_focal(100.0, 4))
    infos.add(of_focal(200.0, 5))
    assert 'in turns' in infos.match(header(99), waited=True).problem


@pytest.mark.parametrize('stamp', [0, 7], ids=['image without', 'image with'])
def test_without_stamps_the_newest_counts_unless_they_come_in_turns(stamp: int) -> None:
    now = 0.0
    infos = CameraInfos(clock=lambda: now)
    image = header(stamp)
    for fx in (100.0, 100.0, 200.0, 200.0, 300.0):  # a zoom
        infos.add(of_focal(fx, 0))
        assert infos.match(image, waited=True).info.k[0] == fx
    infos.add(of_focal(100.0, 0))
    assert 'in turns' in infos.match(image, waited=True).problem
    for _ in range(100):  # the other one has left
        now += 1.0
        infos.add(of_focal(100.0, 0))
    assert infos.match(image, waited=True).info.k[0] == 100.0


def test_images_without_stamp_and_frame_are_of_no_camera_where_there_are_two() -> None:
    infos = CameraInfos()
    infos.add(of_focal(100.0, 0, 'left'))
    assert infos.match(header(0, ''), waited=True).info.k[0] == 100.0
    infos.add(of_focal(200.0, 0, 'right'))
    assert 'share the topic' in infos.match(header(0, ''), waited=True).problem
    assert infos.match(header(0, 'left'), waited=True).info.k[0] == 100.0


def test_several_publishers_are_given_the_time_to_contradict_each_other() -> None:
    now = 0.0
    infos = CameraInfos(clock=lambda: now)

    def match(stamp: int, publishers: int) -> Any:
        return infos.match(header(stamp), waited=True, publishers=publishers)

    infos.add(of_focal(100.0, 1))
    assert match(1, 1).own
    for stamp in (1, 2):  # the own one, and the newest
        early = match(stamp, 2)
        assert early.info is None
        assert early.problem.startswith('2 publishers send CameraInfos, and whether these differ')
    now = 2.0
    assert match(1, 2).own
    assert match(2, 2).info.k[0] == 100.0, 'they agree'
    assert match(2, 3).info is None, 'a new one'
    now = 4.0
    infos.add(of_focal(200.0, 3))
    assert match(3, 3).own, 'its stamp says so'
    assert 'from 3 publishers' in match(4, 3).problem, 'either may be meant'
    assert match(4, 1).info.k[0] == 200.0, 'a camera with a zoom'


def test_an_old_info_that_comes_again_is_not_the_newest() -> None:
    """The node has two subscriptions, so every latched info comes twice."""
    infos = CameraInfos()
    for stamp in (1, 2, 1):
        infos.add(of_focal(100.0 * stamp, stamp))
    assert infos.match(header(7), waited=True).info.k[0] == 200.0


def test_one_wait_in_vain_ends_the_waiting_until_stamps_match_again() -> None:
    infos = CameraInfos()
    assert infos.due(header(1))
    assert not infos.match(header(1), waited=False).own
    assert infos.due(header(2)), 'nobody has waited yet'
    assert not infos.match(header(2), waited=True).own
    assert not infos.due(header(3))
    infos.add(info(1))  # one that nobody asks for any more
    assert not infos.due(header(3))
    infos.add(info(2))  # it was only late
    assert infos.due(header(3))
    assert not infos.match(header(3), waited=True).own
    infos.add(info(4))
    assert infos.match(header(4), waited=False).own
    assert infos.due(header(5))


def test_only_the_newest_are_kept() -> None:
    infos = CameraInfos()
    for stamp in range(1000):
        infos.add(info(stamp))
    assert infos.match(header(999), waited=False).own
    assert not infos.match(header(0), waited=False).own


def test_raw_images_use_k_and_d() -> None:
    camera = camera_model(info(), rectified=False)
    assert (camera.fx, camera.fy) == (500.0, 510.0)
    assert camera.distortion == (0.1, -0.05, 0.0, 0.0, 0.0)
    grid = Letterbox.fit(640, 480, 320, 256)
    out = camera_info(grid.camera(camera))
    assert (out.width, out.height) == (320, 240)
    assert (out.k[0], out.k[4], out.k[2], out.k[5]) == (250.0, 255.0, 159.5, 119.5)
    assert (out.p[0], out.p[2], out.p[3], out.p[5]) == (200.0, 159.5, -20.0, 200.0)
    assert list(out.d) == [0.1, -0.05, 0.0, 0.0, 0.0]
    assert list(out.r) == list(info().r)
    assert (out.binning_x, out.roi.width) == (0, 0)


def test_rectified_images_use_p_without_distortion() -> None:
    camera = camera_model(info(), rectified=True)
    assert (camera.fx, camera.fy, camera.distortion) == (400.0, 400.0, ())
    grid = Letterbox.fit(640, 480, 320, 256)
    out = camera_info(grid.camera(camera))
    assert (out.k[0], out.p[0]) == (200.0, 200.0)
    assert list(out.d) == [0.0] * 5
    assert list(out.r) == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_region_of_interest_and_binning_are_in_the_output() -> None:
    source = info()
    source.roi.x_offset, source.roi.y_offset = 160, 120
    source.roi.width, source.roi.height = 320, 240
    source.binning_x = source.binning_y = 2
    camera = camera_model(source, rectified=False)  # of the 160x120 images that are sent
    grid = Letterbox.fit(160, 120, 320, 256)
    out = camera_info(grid.camera(camera))
    assert (out.width, out.height) == (320, 240)
    # One output pixel is one pixel of the region in full resolution.
    assert (out.k[0], out.k[2], out.k[5]) == pytest.approx((500.0, 159.5, 119.5))
    assert (out.p[0], out.p[2]) == pytest.approx((400.0, 159.5))


@pytest.mark.parametrize('rectified', [False, True])
def test_where_p_and_r_are_empty_the_output_has_k_and_no_rotation(rectified: bool) -> None:
    """So do OAK cameras; who reads P would divide by zero."""
    source = info()
    source.p, source.r, source.d = [0.0] * 12, [0.0] * 9, [0.0] * 5
    grid = Letterbox.fit(640, 480, 320, 256)
    out = camera_info(grid.camera(camera_model(source, rectified=rectified)))
    assert list(out.p) == [250.0, 0.0, 159.5, 0.0, 0.0, 255.0, 119.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert list(out.r) == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_rectified_images_are_not_turned_again() -> None:
    source = info()
    source.p, source.d = [0.0] * 12, [0.0] * 5
    assert camera_model(source, rectified=False).rectification == tuple(source.r)
    assert camera_model(source, rectified=True).rectification == IDENTITY


def test_rectified_images_of_a_lens_need_p() -> None:
    source = info()
    source.p = [0.0] * 12
    with pytest.raises(CameraError, match='P of their CameraInfo has no focal length'):
        camera_model(source, rectified=True)


@pytest.mark.parametrize(
    ('setting', 'topic', 'rectified'),
    [
        ('auto', '/camera/image_raw', False),
        ('auto', '/camera/image_rect', True),
        ('auto', '/camera/image_rect_color/compressed', True),
        ('auto', '/image', False),
        ('true', '/camera/image_raw', True),
        ('false', '/camera/image_rect', False),
    ],
)
def test_the_topic_tells_whether_images_are_rectified(
    setting: str, topic: str, rectified: bool
) -> None:
    assert is_rectified(setting, topic, info()) == rectified


@pytest.mark.parametrize('r', [IDENTITY, [0.0] * 9])
def test_an_info_without_lens_and_rotation_is_of_rectified_images(r: Any) -> None:
    source = info()
    source.d, source.r = [0.0] * 5, r
    assert is_rectified('auto', '/image', source)
    assert not is_rectified('false', '/image', source)
    (doubt,) = doubts_about(source, setting='auto', topic='/image', image=(640, 480))
    assert doubt.startswith('K and P differ')
    for field, value in (('d', [0.1] * 5), ('r', info().r), ('p', [0.0] * 12), ('k', [0.0] * 9)):
        other = copy.deepcopy(source)
        setattr(other, field, value)
        assert not is_rectified('auto', '/image', other)


def test_a_setting_against_the_name_of_the_topic_is_doubted() -> None:
    def found(setting: str, topic: str, source: Any) -> str:
        return '; '.join(doubts_about(source, setting=setting, topic=topic, image=(640, 480)))

    assert 'rectified is false, and images come from /image_rect' in found(
        'false', '/image_rect', info()
    )
    assert 'rectified is true, and images come from /image_raw' in found(
        'true', '/image_raw', info()
    )
    for setting, topic in (('auto', '/image_rect'), ('true', '/image'), ('false', '/image_raw')):
        assert found(setting, topic, info()) == ''
    plain = info()
    plain.d, plain.p = [0.0] * 5, [0.0] * 12
    assert found('false', '/image_rect', plain) == ''  # it makes no difference


def test_rectified_images_do_not_ask_for_the_lens() -> None:
    source = info()
    source.distortion_model, source.k = 'magic', [math.nan] * 9
    assert camera_model(source, rectified=True).fx == 400.0
    for setting, topic in (('auto', '/image_rect'), ('true', '/image')):
        assert doubts_about(source, setting=setting, topic=topic, image=(640, 480)) == ()
