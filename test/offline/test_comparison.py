"""Two runs on the same images: how they differ, bags against each other, and the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='makes bags of outputs')

from mtl_perception.bundle import load_bundle
from mtl_perception.offline.comparison import Comparison
from mtl_perception.offline.recordings import (
    RecordingError,
    RecordingReader,
    RecordingWriter,
)
from mtl_perception.offline.runs import RunFrame
from mtl_perception.offline.stored import (
    by_stamp,
    frames_of_bags,
    output_namespace,
    paired,
    stored_frames,
)

HEIGHT, WIDTH = 4, 6
Arrays = dict[str, np.ndarray]
ENCODINGS = {'uint8': 'mono8', 'float32': '32FC1'}


def outputs(label: int = 0, depth: float = 2.0) -> Arrays:
    """Of one frame, the same everywhere but for half of the labels."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, WIDTH // 2 :] = label
    return {
        'semantic': labels,
        'semantic_confidence': np.full((HEIGHT, WIDTH), 200, np.uint8),
        'depth': np.full((HEIGHT, WIDTH), depth, np.float32),
        'edges': np.full((HEIGHT, WIDTH), 200, np.uint8),
    }


def frame(arrays: Arrays, index: int = 0, truth: Arrays | None = None) -> RunFrame:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return RunFrame(index * 100_000_000, image, arrays, truth or {})


def test_the_second_run_is_judged_as_if_the_first_were_the_truth(tiny_bundle: Path) -> None:
    comparison = Comparison(load_bundle(tiny_bundle), ('fp32', 'int8'))
    comparison.add(frame(outputs()), frame(outputs()))
    comparison.add(frame(outputs(), 1), frame(outputs(label=1, depth=2.5), 1))
    figures = comparison.agreement.compute()
    assert figures['semantic']['accuracy'] == pytest.approx(3 / 4)
    assert figures['depth']['absrel'] == pytest.approx((0 + 0.25) / 2)
    assert figures['edges']['f'] == 1
    assert comparison.identical == 1
    assert comparison.lines()[0] == '2 frames, 1 of them equal bit by bit.'
    # Of the first, not of the second.
    other = Comparison(load_bundle(tiny_bundle), ('int8', 'fp32'))
    other.add(frame(outputs(depth=2.5)), frame(outputs()))
    assert other.agreement.compute()['depth']['absrel'] == pytest.approx(0.2)


def test_a_confidence_is_not_judged_by_another_run(tiny_bundle: Path) -> None:
    comparison = Comparison(load_bundle(tiny_bundle), ('A', 'B'))
    comparison.add(frame(outputs()), frame(outputs()))
    assert np.isnan(comparison.agreement.calibration.semantic.compute()['ece'])


def test_holes_of_both_runs_are_equal_and_those_of_one_are_not(tiny_bundle: Path) -> None:
    comparison = Comparison(load_bundle(tiny_bundle), ('A', 'B'))
    hole = outputs(depth=np.nan)
    comparison.add(frame(hole), frame(hole))
    comparison.add(frame(outputs(), 1), frame(hole, 1))
    assert comparison.identical == 1
    assert comparison.agreement.compute()['depth']['coverage'] == 0


def test_the_page_has_both_runs_side_by_side(tiny_bundle: Path) -> None:
    comparison = Comparison(load_bundle(tiny_bundle), ('fp32', 'int8'))
    truth = {'semantic': outputs(label=1)['semantic'], 'depth': outputs(depth=2.0)['depth']}
    for index in range(3):
        comparison.add(
            frame(outputs(), index, truth), frame(outputs(label=1, depth=2.5), index, truth)
        )
    page = comparison.page('fp32 and int8', {})
    sections = {section.title: section for section in page.sections}
    semantic = sections['Accuracy'].tables[0]
    assert semantic.columns == ('figure', 'fp32', 'int8', 'difference')
    assert ['pixel accuracy', '0.5', '1', '+0.5'] in semantic.rows
    # Between the two nothing is called true.
    agreement = sections['Agreement']
    assert 'Depth by the distance in fp32' in [table.title for table in agreement.tables]
    confusion = agreement.plots[-1]
    assert (confusion.y_label, confusion.x_label) == ('fp32', 'int8')
    assert 'true' not in confusion.note
    assert [series.name for series in sections['Over time'].plots[0].series] == ['fp32', 'int8']
    assert page.film is not None
    assert page.film.layers[:5] == [
        'image',
        'semantic fp32',
        'semantic int8',
        'semantic difference',
        'semantic truth',
    ]


@pytest.fixture
def write_bag(tmp_path: Path) -> Callable[..., Path]:
    """Writes frames (stamp in ns -> outputs) below a node, topic by topic, as they may come."""

    def write(
        name: str, frames: dict[int, Arrays], nodes: tuple[str, ...] = ('/perception',)
    ) -> Path:
        with RecordingWriter(tmp_path / name) as writer:
            types = writer.types
            for stamp, arrays in frames.items():
                for node in nodes:
                    for output, array in arrays.items():
                        data = types.pack(
                            'sensor_msgs/msg/Image',
                            header=types.header(stamp, 'camera'),
                            height=HEIGHT,
                            width=WIDTH,
                            encoding=ENCODINGS[str(array.dtype)],
                            is_bigendian=0,
                            step=WIDTH * array.itemsize,
                            data=np.frombuffer(array.tobytes(), np.uint8),
                        )
                        writer.write(f'{node}/{output}', 'sensor_msgs/msg/Image', stamp, data)
        return tmp_path / name

    return write


def test_frames_of_two_bags_meet_by_stamp(write_bag: Callable[..., Path]) -> None:
    first = write_bag('a', {stamp: outputs(depth=stamp) for stamp in range(1, 30)})
    second = write_bag('b', {stamp: outputs(depth=2 * stamp) for stamp in range(5, 40, 5)})
    with RecordingReader(first) as a, RecordingReader(second) as b:
        pairs = list(frames_of_bags([a, b]))
    assert [one.stamp_ns for one, _ in pairs] == [5, 10, 15, 20, 25]
    for one, other in pairs:
        assert one.arrays.keys() == outputs().keys()
        assert one.arrays['depth'][0, 0] == one.stamp_ns
        assert other.arrays['depth'][0, 0] == 2 * one.stamp_ns


def test_what_comes_mixed_up_a_little_is_put_in_order() -> None:
    stamps = [3, 1, 2, 2, 9, *range(4, 9), *range(10, 30)]
    assert list(by_stamp(stamps, lambda stamp: stamp)) == sorted(stamps)


def test_pairs_are_those_of_equal_stamps_only() -> None:
    first = [(1, 'a'), (3, 'b'), (4, 'c')]
    second = [(0, 'd'), (3, 'e'), (5, 'f')]
    assert list(paired(first, second)) == [(3, 'b', 'e')]
    assert list(paired(first, [])) == []


def test_the_outputs_of_one_of_several_cameras_are_chosen(write_bag: Callable[..., Path]) -> None:
    nodes = ('/perception/front', '/perception/rear')
    bag = write_bag('two', {1: outputs()}, nodes)
    with RecordingReader(bag) as reader:
        with pytest.raises(RecordingError, match='front, /perception/rear; choose one with --node'):
            output_namespace(reader)
        with pytest.raises(RecordingError, match='no outputs below /perception/left, only below'):
            output_namespace(reader, '/perception/left')
        ((stamp, found),) = stored_frames(reader, '/perception/rear')
    assert (stamp, found.keys()) == (1, outputs().keys())


def test_a_bag_without_outputs_is_told() -> None:
    from mtl_perception.share import share

    expected = pytest.raises(RecordingError, match='has no outputs of mtl_perception')
    with RecordingReader(share('sample/rooms')) as reader, expected:
        output_namespace(reader)
