"""A file is there whole or not at all, whatever ends its writing."""

from __future__ import annotations

import errno
import os

import cv2
import numpy as np
import pytest

from mtl_perception import one_line
from mtl_perception.files import beside, write_beside


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with beside(path) as partial:
        partial.write_text('new')
        assert path.read_text() == 'old'
        assert partial.parent == tmp_path
    assert path.read_text() == 'new'
    assert list(tmp_path.iterdir()) == [path]


class Stopped(BaseException):
    """As KeyboardInterrupt."""


def test_what_ends_the_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def write():
        with beside(path) as partial:
            partial.write_text('ne')
            raise Stopped

    with pytest.raises(Stopped):
        write()
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_found_before_the_file_is_renamed(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        write_beside(path, b'new')
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_writers_that_look_at_the_suffix_find_it(tmp_path):
    with beside(tmp_path / 'a.png') as partial:
        assert cv2.imwrite(str(partial), np.zeros((4, 4), np.uint8))
    with beside(tmp_path / 'a.npz') as partial:
        np.savez(partial, x=1)
    with beside(tmp_path / 'plain') as partial:
        partial.write_bytes(b'')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.npz', 'a.png', 'plain']


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_beside(tmp_path / 'nowhere' / 'a', b'')


def test_what_others_raise_is_one_line():
    assert one_line(RuntimeError('  it\n  failed \n')) == 'it failed'
    assert one_line(TimeoutError()) == 'TimeoutError'
