"""Our files are what the format says: the mcap package, which is not ours, reads them."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest

pytest.importorskip('rosbags', reason='recordings need rosbags')

from mtl_perception.offline.mcap import Channel, McapFile, Message, chunk, zstd_codec

TEXT = 'std_msgs/msg/String'


def channel(topic: str, kind: str = TEXT, definition: str = 'string data\n') -> Channel:
    return Channel(topic, kind, definition, 'ros2msg', {'offered_qos_profiles': ''}, 'RIHS01_0')


def text(words: str) -> bytes:
    """CDR of a std_msgs/String."""
    content = words.encode() + b'\0'
    return b'\0\1\0\0' + struct.pack('<I', len(content)) + content


def packed(messages: list[Message]) -> bytes:
    return b''.join(chunk(messages, zstd_codec()[0]))


def written(*chunks: bytes) -> bytes:
    file = io.BytesIO()
    mcap = McapFile(file, [channel('/a'), channel('/b'), channel('/never', 'std_msgs/msg/Bool')])
    mcap.begin()
    for records in chunks:
        mcap.append(records)
    mcap.finish({'made by': {'program': 'test'}, 'empty': {}})
    return file.getvalue()


MESSAGES = [
    Message(1, 30, [text('x')]),
    Message(2, 10, [text('y' * 1000)]),
    Message(1, 20, [text('z')]),
]
LAST = [Message(2, 40, [text('')[:3], text('')[3:]])]  # in pieces
CHUNKS = packed(MESSAGES), b'', b''.join(chunk(LAST, None))
# A step's, written at once.
TOGETHER = (b''.join(CHUNKS),)


@pytest.mark.parametrize('chunks', [CHUNKS, TOGETHER], ids=['apart', 'together'])
def test_an_independent_reader_finds_everything(chunks: tuple[bytes, ...]) -> None:
    reading = pytest.importorskip('mcap.reader', reason='the mcap package is the judge')
    ros2 = pytest.importorskip('mcap_ros2.decoder', reason='decodes ROS messages')
    reader = reading.make_reader(
        io.BytesIO(written(*chunks)),
        validate_crcs=True,
        decoder_factories=[ros2.DecoderFactory()],
    )
    summary = reader.get_summary()
    assert summary.statistics.message_count == 4
    assert summary.statistics.chunk_count == 2
    assert summary.statistics.metadata_count == 2
    assert (summary.statistics.message_start_time, summary.statistics.message_end_time) == (10, 40)
    assert summary.statistics.channel_message_counts == {1: 2, 2: 2, 3: 0}
    assert [c.topic for c in summary.channels.values()] == ['/a', '/b', '/never']
    found = [(c.topic, m.log_time, d.data) for _, c, m, d in reader.iter_decoded_messages()]
    assert found == [('/b', 10, 'y' * 1000), ('/a', 20, 'z'), ('/a', 30, 'x'), ('/b', 40, '')]
    assert [m.log_time for _, _, m in reader.iter_messages(['/a'])] == [20, 30]
    assert {m.name: m.metadata for m in reader.iter_metadata()} == {
        'made by': {'program': 'test'},
        'empty': {},
    }


@pytest.mark.parametrize('chunks', [CHUNKS, TOGETHER], ids=['apart', 'together'])
def test_every_record_of_the_stream_is_valid(chunks: tuple[bytes, ...]) -> None:
    streaming = pytest.importorskip('mcap.stream_reader', reason='the mcap package is the judge')
    data = written(*chunks)
    records: list[Any] = list(
        streaming.StreamReader(io.BytesIO(data), emit_chunks=True, validate_crcs=True).records
    )
    names = [type(record).__name__ for record in records]
    assert names[0] == 'Header'
    assert names[-1] == 'Footer'
    assert names.count('Chunk') == names.count('ChunkIndex') == 2
    stored = [record for record in records if type(record).__name__ == 'Chunk']
    assert [record.compression for record in stored] == ['zstd', '']
    assert b'yyyy' not in stored[0].data
    # Offsets in the summary point at the records that they are of.
    for record in records:
        if type(record).__name__ == 'ChunkIndex':
            assert data[record.chunk_start_offset] == 6
            end = record.chunk_start_offset + record.chunk_length
            for offset in record.message_index_offsets.values():
                assert data[offset] == 7
                assert end <= offset < end + record.message_index_length
        if type(record).__name__ == 'SummaryOffset':
            assert data[record.group_start] == record.group_opcode
        if type(record).__name__ == 'MetadataIndex':
            assert data[record.offset] == 0x0C
            assert struct.unpack_from('<Q', data, record.offset + 1)[0] + 9 == record.length


def test_a_file_without_messages_is_a_file() -> None:
    reading = pytest.importorskip('mcap.reader', reason='the mcap package is the judge')
    summary = reading.make_reader(io.BytesIO(written()), validate_crcs=True).get_summary()
    assert summary.statistics.message_count == summary.statistics.message_start_time == 0


def test_a_chunk_depends_on_its_messages_only() -> None:
    compress, decompress = zstd_codec()
    assert packed(MESSAGES) == packed(MESSAGES)
    assert packed(MESSAGES) in written(*CHUNKS)
    assert decompress(compress(b'labels' * 99)) == b'labels' * 99
