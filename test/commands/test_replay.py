"""``mtl_perception replay``: every frame of the sample, the same bytes on every run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='recordings need rosbags')
pytest.importorskip('onnxruntime', reason='runs the tiny network')

from mtl_perception.commands import cli
from mtl_perception.commands import replay as command
from mtl_perception.offline.recordings import RecordingReader, RecordingWriter

SAMPLE = Path(__file__).parents[2] / 'resource' / 'sample' / 'rooms'
SHORT = ('--start', '1', '--duration', '2')


@pytest.fixture
def replay(tiny_bundle: Path) -> Any:
    """Runs the command on the sample, with the tiny network on ONNX Runtime."""

    def run(out: Path, *words: str) -> int:
        engine = ('--bundle', str(tiny_bundle), '--backend', 'onnxruntime')
        return cli.main(['replay', str(SAMPLE), str(out), *engine, *words])

    return run


def stamps(folder: Path, topic: str) -> list[int]:
    with RecordingReader(folder) as reader:
        found = (reader.unpack(message).header.stamp for message in reader.messages([topic]))
        return [stamp.sec * 10**9 + stamp.nanosec for stamp in found]


def test_every_frame_is_answered_with_its_own_header(replay: Any, tmp_path: Path) -> None:
    assert replay(tmp_path / 'out', '--keep', '/camera/camera_info') == 0
    images = stamps(SAMPLE, '/camera/image_raw/compressed')
    assert len(images) == 108
    assert stamps(tmp_path / 'out', '/perception/depth') == images
    with RecordingReader(tmp_path / 'out') as reader, RecordingReader(SAMPLE) as sample:
        kept, source = (
            [message.data for message in bag.messages(['/camera/camera_info'])]
            for bag in (reader, sample)
        )
        assert kept == source
        assert {'/perception/semantic', '/perception/label_info'} <= set(reader.topics)
        assert '/perception/points' not in reader.topics  # large, and can be computed of others


def test_a_part_of_the_time_and_of_the_frames(replay: Any, tmp_path: Path) -> None:
    images = stamps(SAMPLE, '/camera/image_raw/compressed')
    assert replay(tmp_path / 'out', *SHORT, '--every', '3', '--outputs', 'depth,points') == 0
    found = stamps(tmp_path / 'out', '/perception/depth')
    within = [stamp for stamp in images if 1e9 <= stamp - images[0] < 3e9]
    assert found == within[::3]
    with RecordingReader(tmp_path / 'out') as reader:
        assert '/perception/semantic' not in reader.topics
        assert reader.counts['/perception/points'] == len(found)


def test_masks_are_of_the_classes_that_were_asked_for(
    replay: Any, tmp_path: Path, capsys: Any
) -> None:
    short = ('--duration', '0.5')
    assert replay(tmp_path / 'plain', *short) == 0
    with RecordingReader(tmp_path / 'plain') as reader:
        assert '/perception/mask' not in reader.topics  # which would be black
    assert replay(tmp_path / 'plain', *short, '--outputs', 'mask') == 1
    assert 'there is no output mask without --mask-classes' in capsys.readouterr().err
    assert replay(tmp_path / 'masked', *short, '--mask-classes', 'red thing,blue thing') == 0
    with RecordingReader(tmp_path / 'masked') as reader:
        labels, mask = (
            np.stack([reader.unpack(m).data for m in reader.messages([f'/perception/{name}'])])
            for name in ('semantic', 'mask')
        )
    assert 0 < np.mean(mask == 255) < 1
    np.testing.assert_array_equal(mask == 255, np.isin(labels, (0, 2)))


def test_numbers_are_stored_as_they_are_and_the_rest_in_zstd(replay: Any, tmp_path: Path) -> None:
    streaming = pytest.importorskip('mcap.stream_reader', reason='the mcap package is the judge')
    assert replay(tmp_path / 'out', '--duration', '0.3') == 0
    with (tmp_path / 'out' / 'out.mcap').open('rb') as file:
        records = list(streaming.StreamReader(file, emit_chunks=True, validate_crcs=True).records)
    topics = {r.id: r.topic for r in records if type(r).__name__ == 'Channel'}
    kinds: dict[str, set[str]] = {'': set(), 'zstd': set()}
    for record in records:
        if type(record).__name__ == 'Chunk':
            found = streaming.breakup_chunk(record)
            kinds[record.compression] |= {topics[m.channel_id] for m in found}
    assert kinds[''] == {'/perception/depth', '/perception/normals'}
    assert '/perception/semantic' in kinds['zstd']


def test_two_runs_give_the_same_bytes(replay: Any, tmp_path: Path) -> None:
    files = []
    for name, words in (('one', ()), ('two', ()), ('three', ('--batch', '3', '--threads', '2'))):
        assert replay(tmp_path / name / 'out', *SHORT, '--outputs', 'all', *words) == 0
        files.append((tmp_path / name / 'out' / 'out.mcap').read_bytes())
    assert files[0] == files[1] == files[2]


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    replay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert replay(tmp_path / 'whole' / 'out', *SHORT) == 0

    class Bar(command.ProgressBar):
        def update(self, done: int) -> None:
            if done == 12:
                raise KeyboardInterrupt

    monkeypatch.setattr('mtl_perception.offline.writing._CHECKPOINT_S', 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(command, 'ProgressBar', Bar)
        assert replay(tmp_path / 'part' / 'out', *SHORT) == 130
    assert not (tmp_path / 'part' / 'out').exists()  # not half a bag
    assert replay(tmp_path / 'part' / 'out', *SHORT, '--every', '2', '--resume') == 1
    assert replay(tmp_path / 'part' / 'out', *SHORT, '--resume') == 0
    files = [(tmp_path / name / 'out' / 'out.mcap').read_bytes() for name in ('whole', 'part')]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--resume',), 'no part of'),
        (('--outputs', 'smell'), 'there is no output smell'),
        (('--camera', '/nose'), '/nose'),
        (('--keep', '/nose'), '/nose'),
    ],
)
def test_refusals_name_what_is_wrong(
    words: tuple[str, ...], message: str, replay: Any, tmp_path: Path, capsys: Any
) -> None:
    assert replay(tmp_path / 'out', *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_what_is_no_replay_is_not_overwritten(replay: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'thesis.tex').touch()
    assert replay(tmp_path / 'out') == 1
    assert 'not overwriting' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'thesis.tex').exists()


def test_an_input_is_not_replaced_by_its_output(
    replay: Any, tmp_path: Path, tiny_bundle: Path, capsys: Any
) -> None:
    """Not even where it is a replay itself, which may be replaced."""
    out = tmp_path / 'out'
    assert replay(out, *SHORT, '--keep', '/camera/image_raw/compressed') == 0
    before = (out / 'out.mcap').read_bytes()
    words = ('--bundle', str(tiny_bundle), '--backend', 'onnxruntime')
    assert cli.main(['replay', str(out), str(tmp_path / '.' / 'out'), *words]) == 1
    assert 'not overwriting' in capsys.readouterr().err
    assert (out / 'out.mcap').read_bytes() == before


def test_mcap_reads_it(replay: Any, tmp_path: Path) -> None:
    reader = pytest.importorskip('mcap.reader', reason='the readers of the MCAP project')
    decoder = pytest.importorskip('mcap_ros2.decoder')
    assert replay(tmp_path / 'out', *SHORT) == 0
    with (tmp_path / 'out' / 'out.mcap').open('rb') as file:
        opened = reader.make_reader(file, decoder_factories=[decoder.DecoderFactory()])
        assert opened.get_header().library.startswith('mtl_perception')
        depths = [
            message
            for _, channel, _, message in opened.iter_decoded_messages(['/perception/depth'])
        ]
    assert len(depths) == 20
    assert {(depth.width, depth.height, depth.encoding) for depth in depths} == {(85, 64, '32FC1')}


def converted(folder: Path, form: str) -> Path:
    """The first 15 images of the sample, with their CameraInfos, as another kind of recording."""
    rosbag1 = pytest.importorskip('rosbags.rosbag1')
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    ros1, ros2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.LATEST)
    plugin = StoragePlugin.SQLITE3 if form == 'db3' else StoragePlugin.MCAP
    path = folder / ('input.bag' if form == 'bag' else 'input')
    with RecordingReader(SAMPLE) as sample:
        topics = ['/camera/image_raw/compressed', '/camera/camera_info']
        messages = [m for m in sample.messages(topics) if m.time_ns < sample.start_ns + 1.45e9]
    with (
        rosbag1.Writer(path)
        if form == 'bag'
        else Writer(path, version=8, storage_plugin=plugin) as writer
    ):
        store = ros1 if form == 'bag' else ros2
        known = {m.topic: m.type for m in messages}
        channels = {t: writer.add_connection(t, k, typestore=store) for t, k in known.items()}
        for message in messages:
            data = message.data
            if form == 'bag':
                data = bytes(ros2.cdr_to_ros1(data, message.type))
            writer.write(channels[message.topic], message.time_ns, data)
    return next(path.glob('*.mcap')) if form == 'mcap' else path


@pytest.mark.parametrize('form', ['bag', 'db3', 'mcap'])
def test_recordings_of_all_kinds_are_read(form: str, tiny_bundle: Path, tmp_path: Path) -> None:
    source = converted(tmp_path, form)
    out = tmp_path / 'out'
    words = [str(source), str(out), '--bundle', str(tiny_bundle), '--backend', 'onnxruntime']
    assert cli.main(['replay', *words, '--outputs', 'depth']) == 0
    images = stamps(SAMPLE, '/camera/image_raw/compressed')
    found = stamps(out, '/perception/depth')
    assert found == images[: len(found)]
    assert len(found) >= 14


def test_bad_images_are_said_and_counted(tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    topics = ['/camera/image_raw/compressed', '/camera/camera_info']
    source = tmp_path / 'damaged'
    with RecordingReader(SAMPLE) as sample, RecordingWriter(source) as writer:
        kept = [m for m in sample.messages(topics) if m.time_ns < sample.start_ns + 5e8]
        images = 0
        for message in kept:
            data = message.data
            if message.topic == topics[0]:
                images += 1
                if images == 3:  # what follows the header and the format is no JPEG any more
                    at = data.index(b'\xff\xd8')
                    data = data[:at] + bytes(len(data) - at)
            writer.write(message.topic, message.type, message.time_ns, data)
    words = [str(source), str(tmp_path / 'out'), '--bundle', str(tiny_bundle)]
    assert cli.main(['replay', *words, '--backend', 'onnxruntime']) == command.INCOMPLETE
    said = r'1 images could not be used: encoding \(the first: the compressed image .* no picture,'
    assert re.search(said, capsys.readouterr().out)
    assert len(stamps(tmp_path / 'out', '/perception/depth')) == images - 1
