"""``mtl_perception replay`` of recordings that are damaged, and onto a disk that is full."""

from __future__ import annotations

import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rosbags', reason='recordings need rosbags')
pytest.importorskip('onnxruntime', reason='runs the tiny network')

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from mtl_perception.commands import cli
from mtl_perception.commands.replay import INCOMPLETE
from mtl_perception.offline.cdr import RecordingError, header_stamp_ns
from mtl_perception.offline.mcap import CHUNK, MESSAGE
from mtl_perception.offline.recordings import Recorded, RecordingReader

SAMPLE = Path(__file__).parents[2] / 'resource' / 'sample' / 'rooms'
IMAGE, INFO = '/camera/image_raw/compressed', '/camera/camera_info'


@pytest.fixture(scope='module')
def messages() -> list[Recorded]:
    """40 images with their CameraInfos."""
    with RecordingReader(SAMPLE) as sample:
        images = [m.time_ns for m in sample.messages([IMAGE])]
        return list(sample.messages([IMAGE, INFO], None, images[40]))


def write(folder: Path, messages: list[Recorded], form: str = 'mcap', zstd: bool = True) -> Path:
    """A bag of them; its file."""
    plugin = StoragePlugin.MCAP if form == 'mcap' else StoragePlugin.SQLITE3
    store = get_typestore(Stores.ROS2_HUMBLE)
    writer = Writer(folder, version=8, storage_plugin=plugin)
    if form == 'mcap' and zstd:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        kinds = {m.topic: m.type for m in messages}
        channels = {t: writer.add_connection(t, k, typestore=store) for t, k in kinds.items()}
        for message in messages:
            writer.write(channels[message.topic], message.time_ns, message.data)
    return folder / f'{folder.name}.{form}'


@pytest.fixture
def replay(tiny_bundle: Path, tmp_path: Path) -> Callable[..., int]:
    def run(source: Path, *words: str, out: str = 'out') -> int:
        engine = ('--bundle', str(tiny_bundle), '--backend', 'onnxruntime', '--outputs', 'depth')
        return cli.main(['replay', str(source), str(tmp_path / out), *engine, *words])

    return run


def stamps(messages: list[Recorded]) -> list[int]:
    return [header_stamp_ns(m.data) for m in messages if m.topic.endswith('compressed')]


def answered(out: Path) -> list[int]:
    with RecordingReader(out) as reader:
        return [header_stamp_ns(m.data) for m in reader.messages(['/perception/depth'])]


@pytest.mark.parametrize(('form', 'remedy'), [('mcap', 'mcap recover'), ('db3', '.recover')])
@pytest.mark.parametrize('indexed', [True, False])
def test_what_is_before_a_missing_end_is_replayed(
    form: str, remedy: str, indexed: bool, messages: Any, replay: Any, tmp_path: Path, capsys: Any
) -> None:
    """As after a recorder was killed: then there is no metadata.yaml, either."""
    file = write(tmp_path / 'cut', messages, form)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    if not indexed:
        (tmp_path / 'cut' / 'metadata.yaml').unlink()
    assert replay(tmp_path / 'cut') == INCOMPLETE
    said = capsys.readouterr().out
    assert remedy in said
    assert ('ros2 bag reindex' in said) is not indexed
    found = answered(tmp_path / 'out')
    assert found == stamps(messages)[: len(found)]
    assert len(found) > 10 if form == 'mcap' else len(found) > 20
    # Who wants to judge by it is told, and does not get a part for the whole.
    with pytest.raises(RecordingError, match='may save it'):
        RecordingReader(file).__enter__()


def test_a_lone_file_that_is_cut_off(messages: Any, replay: Any, tmp_path: Path) -> None:
    """Byte by byte: the last chunks, the summary, the last byte."""
    file = write(tmp_path / 'bag', messages, zstd=False)
    content = file.read_bytes()
    codes, counts = [], []
    for part in (len(content) // 2, len(content) - 2000, len(content) - 1):
        lone = tmp_path / f'{part}.mcap'
        lone.write_bytes(content[:part])
        codes.append(replay(lone, out=str(part)))
        counts.append(len(answered(tmp_path / str(part))))
    assert 25 < counts[0] < counts[1] == counts[2] == 40
    # Nobody knows what else there was, but where only the summary is missing.
    assert codes == [INCOMPLETE, INCOMPLETE, 0]


def test_a_folder_without_metadata_is_a_bag(
    messages: Any, replay: Any, tmp_path: Path, capsys: Any
) -> None:
    """Split in two, and whole: nothing is missing."""
    folder = tmp_path / 'split'
    folder.mkdir()
    for index, part in ((9, messages[:30]), (10, messages[30:])):
        write(tmp_path / f'bag_{index}', part).rename(folder / f'bag_{index}.mcap')
    assert replay(folder) == 0
    assert 'ros2 bag reindex' in capsys.readouterr().out
    assert answered(tmp_path / 'out') == stamps(messages)
    with RecordingReader(folder) as reader:
        assert reader.counts == {IMAGE: 40, INFO: 40}


def write_chunks(file: Path, messages: list[Recorded], *, zstd: bool = True) -> bytearray:
    """A bag of several chunks with checksums; its content."""
    pytest.importorskip('mcap', reason='writes chunks with checksums')
    from mcap.writer import CompressionType
    from mcap.writer import Writer as McapWriter

    kinds = {m.topic: m.type for m in messages}
    with RecordingReader(SAMPLE) as sample, file.open('wb') as opened:
        kind = CompressionType.ZSTD if zstd else CompressionType.NONE
        writer = McapWriter(opened, chunk_size=100_000, compression=kind, enable_crcs=True)
        writer.start('ros2', 'test')
        channels = {}
        for topic, name in kinds.items():
            schema = writer.register_schema(name, 'ros2msg', sample.definition(name).encode())
            channels[topic] = writer.register_channel(topic, 'cdr', schema)
        for m in messages:
            writer.add_message(channels[m.topic], m.time_ns, m.data, m.time_ns)
        writer.finish()
    return bytearray(file.read_bytes())


@pytest.mark.parametrize('zstd', [True, False])
def test_a_damaged_chunk_is_left_out(
    zstd: bool, messages: Any, replay: Any, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / 'bag.mcap'
    content = write_chunks(file, messages, zstd=zstd)
    starts = chunk_starts(content)
    start = starts[3]
    content[start + 5000 : start + 5010] = bytes(10)
    file.write_bytes(content)
    assert len(starts) > 5
    assert replay(file) == INCOMPLETE
    said = capsys.readouterr().out
    assert '1 damaged parts' in said
    assert 'mcap recover' in said
    found, everything = answered(tmp_path / 'out'), stamps(messages)
    assert len(everything) - 12 <= len(found) < len(everything)
    lost = [index for index, stamp in enumerate(everything) if stamp not in found]
    assert lost == list(range(lost[0], lost[-1] + 1))  # a gap, and all that is after it
    assert found == [stamp for stamp in everything if stamp in found]


@pytest.mark.parametrize(
    'broken',
    [bytes(9), b'\xff' * 9, b'\x06\x07' + bytes(7), b'\x06' + (70_000).to_bytes(8, 'little')],
    ids=['zeros', 'ones', 'too short', 'too long'],
)
@pytest.mark.parametrize('zstd', [True, False])
def test_behind_a_broken_record_header_reading_goes_on(
    zstd: bool, broken: bytes, messages: Any, tmp_path: Path
) -> None:
    """Also where the summary is missing, which would say where the others are."""
    file = tmp_path / 'bag.mcap'
    content = write_chunks(file, messages, zstd=zstd)
    starts = chunk_starts(content)
    content[starts[2] : starts[2] + 9] = broken
    file.write_bytes(content[: starts[-1]])
    with RecordingReader(file, salvage=True) as reader:
        found = [m for m in reader.messages() if m.topic == IMAGE]
        losses = '\n'.join(reader.losses)
    assert f'1 damaged parts, the first at byte {starts[2]}' in losses
    everything = [m for m in messages if m.topic == IMAGE]
    images = [index for index, m in enumerate(everything) if m in found]
    assert [everything[index] for index in images] == found
    lost = sorted({*range(images[-1])} - {*images})
    # Messages that are not compressed are found one by one.
    assert len(lost) < 12 if zstd else not lost
    assert lost == list(range(lost[0], lost[-1] + 1)) if lost else not zstd


@pytest.mark.parametrize('broken', [bytes(9), b'\x05\x40' + bytes(7)], ids=['zeros', 'too short'])
@pytest.mark.parametrize('topic', [IMAGE, INFO])
def test_in_a_chunk_without_a_checksum_only_what_is_broken_is_lost(
    topic: str, broken: bytes, messages: Any, replay: Any, tmp_path: Path, capsys: Any
) -> None:
    file = write(tmp_path / 'bag', messages, zstd=False)
    content = bytearray(file.read_bytes())
    hit = [m for m in messages if m.topic == topic][15]
    place = content.index(hit.data) - 31
    assert content[place] == MESSAGE
    content[place : place + 9] = broken
    file.write_bytes(content[:-100])
    assert replay(file) == INCOMPLETE
    assert 'damaged parts' in capsys.readouterr().out
    gone = stamps([hit])
    assert answered(tmp_path / 'out') == [s for s in stamps(messages) if s not in gone]


def test_messages_that_are_too_short_do_not_end_a_replay(
    messages: Any, replay: Any, tmp_path: Path, capsys: Any
) -> None:
    """Neither images nor CameraInfos nor what is true."""
    with RecordingReader(SAMPLE) as sample:
        last = messages[-1].time_ns
        truth = list(sample.messages(['/ground_truth/depth'], None, last))
    short = [replace(m, data=m.data[:7]) for m in (messages[4], messages[5], truth[2])]
    kept = [*messages[:4], *short[:2], *messages[6:], *truth[:2], short[2], *truth[3:]]
    write(tmp_path / 'bag', sorted(kept, key=lambda m: m.time_ns))
    assert replay(tmp_path / 'bag', '--evaluate') == INCOMPLETE
    said = capsys.readouterr().out
    assert f'1 messages on {INFO} cannot be read' in said
    assert '/ground_truth/depth: message of 7 bytes is too short' in said
    assert '1 images could not be used: unreadable' in said
    assert len(answered(tmp_path / 'out')) == len(stamps(messages)) - 1


def write_ros1(file: Path, messages: list[Recorded], compression: str) -> bytearray:
    """A ROS 1 bag of several chunks; its content."""
    from rosbags import rosbag1

    store, cdr = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_HUMBLE)
    writer = rosbag1.Writer(file)
    writer.chunk_threshold = 60_000
    if compression != 'none':
        writer.set_compression(rosbag1.Writer.CompressionFormat[compression.upper()])
    kinds = {m.topic: m.type for m in messages}
    with writer:
        channels = {t: writer.add_connection(t, k, typestore=store) for t, k in kinds.items()}
        for m in messages:
            writer.write(channels[m.topic], m.time_ns, cdr.cdr_to_ros1(m.data, m.type))
    return bytearray(file.read_bytes())


@pytest.mark.parametrize('compression', ['none', 'bz2', 'lz4'])
def test_a_ros1_bag_that_was_not_closed_is_replayed(
    compression: str, messages: Any, replay: Any, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / 'killed.bag'
    content = write_ros1(file, messages, compression)
    chunks = [m.start() for m in re.finditer(b'compression=', content)]
    assert len(chunks) > 4
    at = content.index(b'index_pos=') + 10
    content[at : at + 8] = bytes(8)  # which is written in the end
    file.write_bytes(content[: chunks[-2]])
    assert replay(file) == INCOMPLETE
    assert 'rosbag reindex' in capsys.readouterr().out
    found = answered(tmp_path / 'out')
    assert len(found) > 20
    assert found == stamps(messages)[: len(found)]
    with pytest.raises(RecordingError, match='rosbag reindex'):
        RecordingReader(file).__enter__()


@pytest.mark.parametrize('compression', ['none', 'bz2', 'lz4'])
@pytest.mark.parametrize('where', ['header', 'content'])
def test_what_is_around_a_damaged_part_of_a_ros1_bag_is_read(
    where: str, compression: str, messages: Any, tmp_path: Path
) -> None:
    file = tmp_path / 'damaged.bag'
    content = write_ros1(file, messages, compression)
    chunks = [m.start() for m in re.finditer(b'compression=', content)]
    at = chunks[2] - 8 if where == 'header' else chunks[2] + 3000
    content[at : at + 40] = b'\xee' * 40
    file.write_bytes(content)
    everything = [header_stamp_ns(m.data) for m in messages if m.topic == IMAGE]
    with RecordingReader(file, salvage=True) as reader:
        found = [header_stamp_ns(m.data) for m in reader.messages([IMAGE])]
        losses = reader.losses
    lost = [index for index, stamp in enumerate(everything) if stamp not in found]
    assert found == [stamp for stamp in everything if stamp in found]
    if where == 'content' and compression != 'bz2':
        assert len(lost) <= 1  # there are no checksums; what is in a message tells, or nothing
    else:
        assert len(lost) < 12
        assert losses
    if lost:
        assert lost == list(range(lost[0], lost[-1] + 1))
        assert lost[-1] < len(everything) - 5


def chunk_starts(content: bytes) -> list[int]:
    place, found = 8, []
    while place < len(content) - 8:
        if content[place] == CHUNK:
            found.append(place)
        place += 9 + int.from_bytes(content[place + 1 : place + 9], 'little')
    return found


def test_topics_that_nobody_asked_for_may_be_of_any_kind(
    messages: Any, replay: Any, tmp_path: Path, capsys: Any
) -> None:
    """A definition that cannot be parsed, and one in a language that ROS does not have."""
    pytest.importorskip('mcap', reason='writes such definitions')
    from mcap.writer import Writer as McapWriter

    file = tmp_path / 'bag.mcap'
    with RecordingReader(SAMPLE) as sample, file.open('wb') as opened:
        writer = McapWriter(opened)
        writer.start('ros2', 'test')
        channels = {}
        for topic, name in {m.topic: m.type for m in messages}.items():
            schema = writer.register_schema(name, 'ros2msg', sample.definition(name).encode())
            channels[topic] = writer.register_channel(topic, 'cdr', schema)
        for topic, encoding, text in (
            ('/odd', 'ros2msg', b'\xff what?'),
            ('/pb', 'protobuf', b'\x80'),
        ):
            schema = writer.register_schema(f'odd_msgs/msg{topic}', encoding, text)
            channel = writer.register_channel(topic, 'cdr', schema)
            writer.add_message(channel, messages[0].time_ns, b'\0\1\0\0\0', messages[0].time_ns)
        for m in messages:
            writer.add_message(channels[m.topic], m.time_ns, m.data, m.time_ns)
        writer.finish()
    assert replay(file) == 0
    assert answered(tmp_path / 'out') == stamps(messages)
    assert replay(file, '--keep', '/odd', out='kept') == 0  # as it is
    with RecordingReader(tmp_path / 'kept') as reader:
        assert [m.data for m in reader.messages(['/odd'])] == [b'\0\1\0\0\0']


def test_nothing_to_save_is_said(replay: Any, messages: Any, tmp_path: Path, capsys: Any) -> None:
    file = write(tmp_path / 'bag', messages)
    file.write_bytes(file.read_bytes()[:300])
    assert replay(file) == 1
    error = capsys.readouterr().err
    assert 'the end of' in error
    assert len(error.splitlines()) == 1
    file.write_bytes(b'not a bag')
    assert replay(file) == 1
    assert 'mcap recover may save it' in capsys.readouterr().err


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file grows beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_input_and_what_is_finished(
    messages: Any, replay: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('mtl_perception.offline.writing._CHECKPOINT_S', 0.0)
    source = write(tmp_path / 'bag', messages)
    before = source.read_bytes()
    assert replay(source, out='whole/out') == 0
    size = (tmp_path / 'whole' / 'out' / 'out.mcap').stat().st_size
    shutil.copytree(tmp_path / 'whole', tmp_path / 'part')
    capsys.readouterr()
    with full_disk(size * 2 // 3):
        assert replay(source, out='part/out') == 1
    error = capsys.readouterr().err
    assert f'{tmp_path}/part/out: ' in error
    assert '--resume' in error
    assert len(error.splitlines()) == 1
    assert source.read_bytes() == before
    whole = (tmp_path / 'whole' / 'out' / 'out.mcap').read_bytes()
    assert (tmp_path / 'part' / 'out' / 'out.mcap').read_bytes() == whole  # the one before
    assert replay(source, '--resume', out='part/out') == 0
    assert '40 frames' in capsys.readouterr().out
    assert (tmp_path / 'part' / 'out' / 'out.mcap').read_bytes() == whole
