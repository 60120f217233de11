"""The commands compare and evaluate: engines, bundles and bags on one recording."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2')
pytest.importorskip('rosbags', reason='reads recordings')
pytest.importorskip('onnxruntime', reason='runs the tiny network')

from mtl_perception.bundle import SHIPPED_BUNDLES  # noqa: E402
from mtl_perception.commands import cli  # noqa: E402
from mtl_perception.commands.runs import Variant, parse_variant  # noqa: E402
from mtl_perception.offline.inputs import Reading, open_input  # noqa: E402
from mtl_perception.offline.sample import write_sample  # noqa: E402
from mtl_perception.offline.stored import RecordedCamera  # noqa: E402
from mtl_perception.offline.truth import truth_readers  # noqa: E402

WIDTH, HEIGHT = 96, 64


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Four frames; the tiny network says 5 m everywhere, which is true of the left half."""
    frames = []
    for index in range(4):
        image = np.full((HEIGHT, WIDTH, 3), (20, 60, 100), np.uint8)  # BGR
        metres = np.full((HEIGHT, WIDTH), 5000, np.uint16)
        metres[:, WIDTH // 2 :] = 0
        frames.append(
            {
                'stamp_ns': 1_000_000_000 + index * 100_000_000,
                'rgb': bytes(cv2.imencode('.jpg', image)[1]),
                'k': [100, 0, WIDTH / 2, 0, 100, HEIGHT / 2, 0, 0, 1],
                'width': WIDTH,
                'height': HEIGHT,
                'depth_mm': bytes(cv2.imencode('.png', metres)[1]),
            }
        )
    write_sample(tmp_path / 'recording', frames)
    return tmp_path / 'recording'


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    return error


def test_an_engine_is_equal_to_itself_and_the_report_says_so(
    tiny_bundle: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    page = tmp_path / 'report.html'
    engine = f'{tiny_bundle}@onnxruntime:fp32'
    arguments = ['compare', engine, engine, '--input', str(recording), '--report', str(page)]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert '4 frames, 4 of them equal bit by bit.' in text
    assert re.search(r'depth .*absrel 0,', text)
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)
    assert found is not None
    report = json.loads(found[1])
    assert report['title'] == 'A and B'
    accuracy = next(s for s in report['sections'] if s['title'] == 'Accuracy')
    depth = {row[0]: row[1:] for row in accuracy['tables'][0]['rows']}
    assert float(depth['AbsRel'][0]) < 0.02
    assert len(report['film']['moments']) == 4


def test_bundles_that_differ_do_so_in_figures(
    tiny_bundle: Path,
    make_bundle: Callable[..., Path],
    recording: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def farther(description: dict) -> None:
        description['canonical_focal'] = 80.0

    other = make_bundle(farther, name='other')
    common = ['--input', str(recording)]
    assert cli.main(['compare', str(tiny_bundle), str(other), *common]) == 0
    text = capsys.readouterr().out
    assert re.search(r'depth .*absrel 0\.25,', text)
    assert re.search(r'semantic .*accuracy 1', text)


def test_a_bag_of_outputs_is_compared_with_an_engine(
    tiny_bundle: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a robot recorded, and what a bundle would make of the same images."""
    engine, out = f'{tiny_bundle}@onnxruntime:fp32', str(tmp_path / 'out')
    words = ['--bundle', str(tiny_bundle), '--backend', 'onnxruntime', '--every', '2']
    assert cli.main(['replay', str(recording), out, *words]) == 0
    for sides in ((out, engine), (engine, out)):
        assert cli.main(['compare', *sides, '--input', str(recording)]) == 0
        text = capsys.readouterr().out
        assert '2 frames, 2 of them equal bit by bit.' in text
        assert re.search(r'depth .*absrel 0,', text)


def test_classes_that_differ_cannot_be_compared(
    tiny_bundle: Path,
    make_bundle: Callable[..., Path],
    recording: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def renamed(description: dict) -> None:
        description['tasks']['semantic']['classes'][0]['name'] = 'something else'

    other = make_bundle(renamed, name='other')
    error = error_of(capsys, 'compare', str(tiny_bundle), str(other), '--input', str(recording))
    assert 'have different classes' in error


def test_what_cannot_be_compared_is_one_sentence(
    tiny_bundle: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(tiny_bundle)
    for other in (bundle, str(recording)):
        assert 'give --input IN' in error_of(capsys, 'compare', bundle, other)
    error = error_of(capsys, 'compare', 'nothing', bundle, '--input', str(recording))
    assert 'nothing is not a bag, a bundle folder, or BACKEND:PRECISION' in error
    assert 'has no outputs' in error_of(capsys, 'compare', str(recording), str(recording))
    error = error_of(capsys, 'compare', str(recording), str(recording), '--threads', '1')
    assert '--threads would do nothing with bags' in error


def test_what_keeps_a_report_from_being_written_is_told_before_the_run(
    tiny_bundle: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    common = ['--input', str(recording), '--report', str(tmp_path / 'missing' / 'report.html')]
    for arguments in (['evaluate', str(tiny_bundle)], ['compare', str(tiny_bundle), 'nothing']):
        assert 'in a folder that exists' in error_of(capsys, *arguments, *common)


def test_a_variant_is_a_bundle_an_engine_or_both(tiny_bundle: Path, tmp_path: Path) -> None:
    assert parse_variant(str(tiny_bundle), None) == Variant(tiny_bundle, 'auto', 'fp32')
    shipped = SHIPPED_BUNDLES[-1]  # by its name, as everywhere
    assert parse_variant(shipped, tmp_path) == Variant(Path(shipped), 'auto', 'fp32')
    assert parse_variant('openvino:fp16', tmp_path) == Variant(tmp_path, 'openvino', 'fp16')
    both = parse_variant(f'{tiny_bundle}@onnxruntime:int8', tmp_path)
    assert both == Variant(tiny_bundle, 'onnxruntime', 'int8')


def test_frames_of_a_recording_come_with_calibration_and_truth(recording: Path) -> None:
    with open_input(recording, Reading()) as opened:
        ((name, truth),) = truth_readers(opened.source).items()
        frames = list(RecordedCamera(opened.source, name, truth).frames())
    assert [frame.stamp for frame, _ in frames] == [10**9 + i * 10**8 for i in range(4)]
    for frame, truth in frames:
        assert frame.calibration is not None
        assert frame.calibration.fx == 100
        assert truth['depth'][0].tolist() == [5] * (WIDTH // 2) + [0] * (WIDTH // 2)


def test_one_run_is_judged_against_the_truth(
    tiny_bundle: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    page = tmp_path / 'report.html'
    arguments = ['--input', str(recording), '--report', str(page)]
    assert cli.main(['evaluate', str(tiny_bundle), *arguments]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f'4 frames of {tiny_bundle}.')
    found = re.search(r'depth .*absrel ([0-9.]+), .*coverage 1  \(4 frames\)', text)
    assert found is not None
    assert float(found[1]) < 0.02
    assert '<title>tiny on recording</title>' in page.read_text()
    assert 'give --input IN' in error_of(capsys, 'evaluate', str(tiny_bundle))
