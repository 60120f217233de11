"""Topics that the launch files join: where images come from, where outputs go, what is replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl_perception.outputs import OTHER_TOPICS, OUTPUTS
from mtl_perception.wiring import (
    WiringError,
    existing,
    full_name,
    input_remaps,
    listed,
    number,
    output_remaps,
    output_topics,
    recorded_remaps,
    shown_remaps,
)


@pytest.mark.parametrize(
    ('image', 'camera_info', 'cameras', 'expected'),
    [
        ('/cam/image_raw', '', [], {'image': '/cam/image_raw', 'camera_info': '/cam/camera_info'}),
        ('image', '', [], {'image': 'image', 'camera_info': 'camera_info'}),
        (
            'image_raw',
            '',
            ['front', 'rear'],
            {
                'front/image': 'front/image_raw',
                'front/camera_info': 'front/camera_info',
                'rear/image': 'rear/image_raw',
                'rear/camera_info': 'rear/camera_info',
            },
        ),
        (
            '/cam_{camera}/color/image_raw',
            '/info/{camera}',
            ['left'],
            {'left/image': '/cam_left/color/image_raw', 'left/camera_info': '/info/left'},
        ),
    ],
)
def test_images_of_many_cameras_come_from_topics_with_their_names(
    image: str, camera_info: str, cameras: list[str], expected: dict[str, str]
) -> None:
    assert dict(input_remaps(image, camera_info, cameras)) == expected


def test_outputs_go_where_they_are_sent() -> None:
    assert output_remaps('semantic:=/mask, ~/points:=cloud', []) == [
        ('~/semantic', '/mask'),
        ('~/points', 'cloud'),
    ]
    assert output_remaps('points:=/{camera}/cloud', ['front', 'rear']) == [
        ('~/front/points', '/front/cloud'),
        ('~/rear/points', '/rear/cloud'),
    ]


@pytest.mark.parametrize('outputs', ['sematic:=/mask', 'semantic', 'semantic:=', ':=/mask'])
def test_outputs_that_there_are_not_are_named(outputs: str) -> None:
    with pytest.raises(WiringError, match=r"outputs has '.*', expected NAME:=TOPIC .*semantic"):
        output_remaps(outputs, [])


def test_cameras_do_not_share_an_output() -> None:
    with pytest.raises(WiringError, match='cameras share none'):
        output_remaps('points:=/cloud', ['front', 'rear'])


def test_rviz_is_shown_the_first_camera_wherever_its_outputs_are() -> None:
    assert not shown_remaps(['points'], '/perception', [], '')
    remaps = shown_remaps(['points', 'edges'], '/robot/eyes', [], 'points:=cloud')
    assert remaps == [
        ('/perception/points', '/robot/cloud'),
        ('/perception/edges', '/robot/eyes/edges'),
    ]
    remaps = shown_remaps(['points'], '/perception', ['front', 'rear'], '')
    assert remaps == [('/perception/points', '/perception/front/points')]


def test_what_the_node_published_into_a_recording_is_played_aside() -> None:
    remaps = dict(recorded_remaps('/perception', [], 'points:=/cloud'))
    names = [output.name for output in OUTPUTS]
    names += [topic[2:] for topic, *_ in OTHER_TOPICS if topic.startswith('~/')]
    own = [f'/perception/{name}' for name in (*names, 'transition_event')]
    assert remaps == {t: f'/recorded{t}' for t in (*own, '/cloud', '/diagnostics')}
    many = dict(recorded_remaps('/robot/perception', ['front', 'rear'], ''))
    assert many['/robot/perception/rear/depth'] == '/recorded/robot/perception/rear/depth'


def test_what_is_compressed_follows_its_image() -> None:
    topics = output_topics('/robot/eyes', ['front', 'rear'], 'depth:=/{camera}/depth')
    assert {'/front/depth', '/front/depth/compressedDepth'} <= {*topics}
    assert '/robot/eyes/rear/edges/compressed' in topics
    assert not [t for t in topics if t.startswith('/robot/eyes/rear/depth/')]
    topics = output_topics('/p', [], 'edges:=/e, edges/compressed:=/small')
    assert {'/e', '/small'} <= {*topics}
    assert '/e/compressed' not in topics


def test_arguments_that_cannot_be_are_named(tmp_path: Path) -> None:
    assert number('threads', '2') == 2
    with pytest.raises(WiringError, match="threads is 'two', expected a whole number"):
        number('threads', 'two')
    file = tmp_path / 'mine.yaml'
    with pytest.raises(WiringError, match=r"params_file is '.*', expected a file that is there"):
        existing('params_file', str(file))
    file.write_text('')
    assert existing('params_file', str(file)) == str(file)


def test_names_and_lists_are_read_as_they_are_written() -> None:
    assert listed(' a, b ,,c') == ['a', 'b', 'c']
    assert listed('') == []
    assert full_name('/robot/', 'eyes') == '/robot/eyes'
    assert full_name('', 'perception') == '/perception'
