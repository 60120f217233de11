"""What is in the cache is what was built, for any number of processes, whatever happens to them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from mtl_perception.engines.cache import CacheError, EngineCache, default_folder
from mtl_perception.engines.entries import Key
from mtl_perception.engines.locks import locked, try_lock
from mtl_perception.files import write_beside

KEY = Key(
    kind='engine',
    model_sha256='0' * 64,
    backend='tensorrt',
    version='10.3.0',
    device='Orin 8.7',
    precision='fp16',
    max_batch=1,
    options={'dla_core': '0'},
)
CONTENT = bytes(range(256)) * 40
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / 'engines')


def build():
    return CONTENT, {'layers': 3}


def no_build():
    raise AssertionError('built, expected the entry of the cache')


def names(cache):
    return sorted(path.name for path in cache.folder.iterdir())


# --- keys and entries ------------------------------------------------------------------------


def test_a_key_is_all_that_decides_what_an_engine_is():
    others = [
        replace(KEY, kind='choice'),
        replace(KEY, model_sha256='1' * 64),
        replace(KEY, backend='openvino'),
        replace(KEY, version='10.16'),
        replace(KEY, device='Orin 8.9'),
        replace(KEY, precision='fp32'),
        replace(KEY, max_batch=2),
        replace(KEY, options={}),
        replace(KEY, options={'dla_core': '1'}),
    ]
    assert len({key.digest() for key in (KEY, *others)}) == 10
    same = replace(KEY, options=dict(KEY.options))
    assert same.digest() == KEY.digest()
    ordered, turned = {'a': '1', 'b': '2'}, {'b': '2', 'a': '1'}
    assert replace(KEY, options=ordered).digest() == replace(KEY, options=turned).digest()
    with pytest.raises(ValueError, match="kind is 'plan', expected one of engine, choice"):
        replace(KEY, kind='plan')


def test_what_was_stored_is_loaded(cache):
    assert cache.load(KEY) is None
    assert cache.last_reason == ''
    assert cache.entries() == []
    path = cache.store(KEY, CONTENT, {'layers': 3})
    assert path.read_bytes() == CONTENT
    assert EngineCache(cache.folder).load(KEY) == CONTENT
    assert cache.load(replace(KEY, max_batch=2)) is None
    (entry,) = cache.entries()
    assert (entry.path, entry.size, entry.damaged) == (path, len(CONTENT), '')
    assert entry.notes == {'layers': 3}
    assert entry.key['device'] == 'Orin 8.7'
    assert entry.key['options'] == {'dla_core': '0'}
    age = datetime.now(timezone.utc) - datetime.fromisoformat(entry.created)
    assert timedelta() <= age + timedelta(seconds=1) < timedelta(minutes=5)
    cache.store(KEY, b'another')
    assert cache.load(KEY) == b'another'
    cache.discard(KEY)
    assert cache.load(KEY) is None
    assert cache.last_reason == ''


def test_the_folder_is_the_users_alone(cache):
    cache.store(KEY, CONTENT)
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_whatever_a_key_holds_stays_in_the_folder(cache, tmp_path):
    odd = replace(KEY, device='../../x', version='/etc/passwd', options={'../y': '\0\n'})
    cache.store(odd, CONTENT)
    assert cache.load(odd) == CONTENT
    for name in ('../../x', '/etc/passwd', '', '.', '..', 'a\0b', 'NVIDIA GeForce RTX 4090 8.9'):
        path = cache.timing_file(name)
        assert path.parent == cache.folder
        write_beside(path, b'times')
        assert path.resolve().parent == cache.folder.resolve()
    assert [path.name for path in tmp_path.iterdir()] == ['engines']
    assert cache.timing_file('A B') != cache.timing_file('A_B')


def test_built_once_then_loaded(cache):
    first = cache.get_or_build(KEY, build)
    assert (first.content, first.built, first.problem) == (CONTENT, True, '')
    second = EngineCache(cache.folder).get_or_build(KEY, no_build)
    assert (second.content, second.built, second.problem) == (CONTENT, False, '')
    assert cache.entries()[0].notes == {'layers': 3}


def test_a_build_that_fails_leaves_nothing_and_the_next_one_builds(cache):
    class Broken(Exception):  # noqa: N818
        pass

    def fail():
        raise Broken('no GPU')

    with pytest.raises(Broken, match='no GPU'):
        cache.get_or_build(KEY, fail)
    assert cache.entries() == []
    assert cache.get_or_build(KEY, build).built


def test_a_discarded_content_is_not_given_again_even_where_it_cannot_be_removed(cache, monkeypatch):
    cache.store(KEY, CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr(Path, 'unlink', refuse(errno.EROFS))
        cache.discard(KEY)
    assert cache.load(KEY) is None
    assert EngineCache(cache.folder).load(KEY) == CONTENT
    assert cache.get_or_build(KEY, lambda: (b'better', {})).content == b'better'
    assert cache.load(KEY) == b'better'


# --- damage ----------------------------------------------------------------------------------


def content_and_record(cache):
    (entry,) = cache.entries()
    return entry.path, entry.path.with_suffix('.json')


def truncate(content, record):
    os.truncate(content, len(CONTENT) // 2)


def flip(content, record):
    changed = bytearray(content.read_bytes())
    changed[1000] ^= 0x10
    content.write_bytes(changed)


def rewrite(change):
    def damage(content, record):
        values = json.loads(record.read_bytes())
        change(values)
        record.write_text(json.dumps(values))

    return damage


DAMAGE = {
    'truncated content': (truncate, 'has 5120 bytes, expected 10240'),
    'flipped byte': (flip, 'sha256'),
    'no content': (lambda content, record: content.unlink(), 'No such file'),
    'empty content': (lambda content, record: content.write_bytes(b''), 'has 0 bytes'),
    'garbage': (lambda content, record: record.write_bytes(b'\xff\x00{'), 'not valid JSON'),
    'empty JSON': (lambda content, record: record.write_bytes(b''), 'not valid JSON'),
    'truncated JSON': (lambda content, record: os.truncate(record, 100), 'not valid JSON'),
    'deep JSON': (lambda content, record: record.write_text('[' * 100_000), 'not valid JSON'),
    'a list': (lambda content, record: record.write_text('[]'), 'not the description of an engine'),
    'newer': (rewrite(lambda v: v.update(schema=2)), 'not the description of an engine'),
    'no hash': (rewrite(lambda v: v.pop('sha256')), 'sha256 is None, expected str'),
    'no time': (rewrite(lambda v: v.update(created='today')), "created is 'today'"),
    'another engine': (rewrite(lambda v: v['key'].update(device='x')), 'is of another engine'),
}


@pytest.mark.parametrize('how', DAMAGE)
def test_a_damaged_entry_is_told_removed_and_built_again(cache, how):
    damage, reason = DAMAGE[how]
    cache.store(KEY, CONTENT)
    damage(*content_and_record(cache))
    (entry,) = cache.entries()
    assert reason in entry.damaged
    assert cache.load(KEY) is None
    assert reason in cache.last_reason
    assert '\n' not in cache.last_reason
    assert cache.entries() == []

    cache.store(KEY, CONTENT)
    damage(*content_and_record(cache))
    again = cache.get_or_build(KEY, build)
    assert (again.content, again.built, again.problem) == (CONTENT, True, '')
    assert reason in cache.last_reason
    assert cache.load(KEY) == CONTENT
    assert cache.last_reason == ''


def test_a_content_without_its_description_does_not_count(cache):
    """As a power cut between the two files leaves it."""
    cache.store(KEY, CONTENT)
    _, record = content_and_record(cache)
    record.unlink()
    assert cache.load(KEY) is None
    assert 'No such file' in cache.entries()[0].damaged
    assert cache.get_or_build(KEY, build).built
    assert cache.load(KEY) == CONTENT


# --- processes -------------------------------------------------------------------------------

CHILD = """
    import os, sys
    from pathlib import Path
    from mtl_perception.engines.cache import EngineCache
    from mtl_perception.engines.entries import Key

    def tell(*words):
        print(*words, flush=True)

    key = Key('engine', '0' * 64, 'tensorrt', '10.3.0', 'Orin 8.7', 'fp16', 1, {'dla_core': '0'})
    cache = EngineCache(Path(sys.argv[1]))
"""


@pytest.fixture
def start(cache):
    """A function that starts a Python process on the cache; it is killed at the end."""
    running = []

    def start_one(code):
        code = textwrap.dedent(CHILD) + textwrap.dedent(code)
        running.append(
            subprocess.Popen(
                [sys.executable, '-c', code, str(cache.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
        )
        return running[-1]

    yield start_one
    for process in running:
        process.kill()
        process.communicate()


BUILDER = """
    told = []

    def progress(activity, share):
        if not told:
            tell(activity)
        told.append(activity)

    def build():
        tell('building')
        sys.stdin.readline()
        return os.urandom(100_000), {}

    cached = cache.get_or_build(key, build, progress=progress)
    tell(cached.built, cached.content[:16].hex(), cached.problem)
"""


def test_of_two_processes_one_builds_and_both_have_the_same(start, cache):
    first = start(BUILDER)
    assert first.stdout.readline() == 'building\n'
    second = start(BUILDER)
    assert second.stdout.readline() == 'waiting for another process that builds it\n'
    first.stdin.write('\n')
    first.stdin.flush()
    built, content, *problem = first.stdout.readline().split()
    assert (built, problem) == ('True', [])
    assert second.stdout.readline().split() == ['False', content]
    assert cache.load(KEY)[:16].hex() == content
    assert [entry.damaged for entry in cache.entries()] == ['']


# Where a process is killed: in the build, or when it is about to give a file its name.
STOPPED = """
    replace, count = os.replace, iter(range(9))

    def stop(*paths):
        if next(count) == {number}:
            tell('stopped')
            sys.stdin.readline()
        replace(*paths)

    os.replace = stop

    def build():
        if {number} < 0:
            tell('stopped')
            sys.stdin.readline()
        return bytes(100_000), {{}}

    cache.get_or_build(key, build)
"""


@pytest.mark.parametrize('number', [-1, 0, 1], ids=['building', 'content', 'description'])
def test_kill_9_leaves_nothing_that_loads_and_the_next_one_builds(start, cache, number):
    process = start(STOPPED.format(number=number))
    assert process.stdout.readline() == 'stopped\n'
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cache.load(KEY) is None
    again = cache.get_or_build(KEY, build)
    assert (again.content, again.built, again.problem) == (CONTENT, True, '')
    assert cache.load(KEY) == CONTENT
    digest = KEY.digest()
    assert names(cache) == [f'{digest}.bin', f'{digest}.json', f'{digest}.lock']


def test_prune_removes_what_a_killed_process_left_and_nothing_of_a_running_one(start, cache):
    other = replace(KEY, max_batch=2)
    killed = start(STOPPED.format(number=1))
    assert killed.stdout.readline() == 'stopped\n'
    left = names(cache)
    assert len(left) == 3  # lock, content, and the description under a temporary name
    cache.store(other, CONTENT)
    assert cache.prune(everything=True) != []
    assert names(cache) == left
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert 'No such file' in cache.prune()[0].damaged
    assert names(cache) == []


def test_a_lock_that_was_pruned_is_still_one_lock(cache):
    """Who opened the file before it was removed must not hold a lock that nobody else sees."""
    cache.store(KEY, CONTENT)
    opened, flock = [], fcntl.flock
    lock = cache.folder / f'{KEY.digest()}.lock'

    def prune_first(handle, how):
        if not opened:
            opened.append(handle)
            cache.prune(everything=True)
        flock(handle, how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, 'flock', prune_first)
        with locked(lock):
            assert lock.exists()
            assert try_lock(lock) is None


def test_threads_of_one_process_take_turns_too(cache):
    started, go, results = threading.Event(), threading.Event(), []

    def slow():
        started.set()
        go.wait(60)
        return CONTENT, {}

    def run(build):
        results.append(EngineCache(cache.folder).get_or_build(KEY, build, progress=progress))

    def progress(activity, share):
        go.set()

    first = threading.Thread(target=run, args=(slow,))
    first.start()
    assert started.wait(60)
    run(no_build)
    first.join()
    assert sorted(result.built for result in results) == [False, True]


def test_what_progress_raises_ends_the_waiting(cache):
    class Enough(Exception):  # noqa: N818
        pass

    def progress(activity, share):
        raise Enough

    lock = cache.folder / f'{KEY.digest()}.lock'
    cache.folder.mkdir()
    with locked(lock), pytest.raises(Enough):
        EngineCache(cache.folder).get_or_build(KEY, no_build, progress=progress)


# --- folders that cannot be used -------------------------------------------------------------


def refuse(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_where_the_folder_should_be_is_no_reason_to_fail(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'engines'):
        cache = EngineCache(folder)
        assert cache.load(KEY) is None
        cached = cache.get_or_build(KEY, build)
        assert (cached.content, cached.built) == (CONTENT, True)
        assert cached.problem.startswith(f'{folder}: cannot be written: ')
        assert '\n' not in cached.problem
        assert cache.entries() == []
        assert cache.prune(everything=True) == []
        with pytest.raises(CacheError, match='cannot be written'):
            cache.store(KEY, CONTENT)
    assert (tmp_path / 'file').read_text() == 'in the way'


def test_a_file_system_that_cannot_be_written():
    cached = EngineCache(Path('/proc/engines')).get_or_build(KEY, build)
    assert (cached.content, cached.built) == (CONTENT, True)
    assert '/proc/engines: cannot be written' in cached.problem


def test_a_read_only_folder_gives_what_it_holds(cache, monkeypatch):
    """As one that was filled when an image was made. Root may write anywhere: so faked."""
    cache.store(KEY, CONTENT)
    for name in ('replace', 'mkdir'):
        monkeypatch.setattr(os, name, refuse(errno.EROFS))
    monkeypatch.setattr(Path, 'unlink', refuse(errno.EROFS))
    actual = os.open

    def read_only(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return actual(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, 'open', read_only)
    assert cache.load(KEY) == CONTENT
    cached = cache.get_or_build(KEY, no_build)
    assert (cached.content, cached.problem) == (CONTENT, '')
    cached = cache.get_or_build(replace(KEY, max_batch=2), build)
    assert cached.built
    assert cached.problem == f'{cache.folder}: cannot be written: Read-only file system'
    cache.discard(KEY)
    assert cache.load(KEY) is None
    with pytest.raises(CacheError, match='cannot be pruned: Read-only file system'):
        cache.prune(everything=True)


def test_a_folder_without_write_permission(cache):
    cache.store(KEY, CONTENT)
    cache.folder.chmod(0o500)
    if os.access(cache.folder, os.W_OK):
        pytest.skip('this user may write anywhere')
    try:
        assert cache.get_or_build(KEY, no_build).content == CONTENT
        assert 'Permission denied' in cache.get_or_build(replace(KEY, max_batch=2), build).problem
        cache.folder.chmod(0)
        assert 'Permission denied' in cache.get_or_build(KEY, build).problem
    finally:
        cache.folder.chmod(0o700)


@pytest.mark.parametrize('when', [0, 1], ids=['content', 'description'])
def test_a_full_disk_is_no_reason_to_fail_and_leaves_nothing_half_written(cache, monkeypatch, when):
    calls, fsync = iter(range(99)), os.fsync
    files = []

    def full(handle):
        # Folders are synchronised too; they are not what fills a disk.
        if os.path.isfile(f'/proc/self/fd/{handle}'):
            files.append(handle)
            if next(calls) == when:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, 'fsync', full)
    cached = cache.get_or_build(KEY, build)
    assert (cached.content, cached.built) == (CONTENT, True)
    assert 'No space left on device' in cached.problem
    assert len(files) == when + 1
    assert names(cache) == [f'{KEY.digest()}.lock']
    assert cache.get_or_build(KEY, build).problem == ''
    assert cache.load(KEY) == CONTENT


# --- prune -----------------------------------------------------------------------------------


def test_prune_by_age(cache):
    old, new = KEY, replace(KEY, max_batch=2)
    cache.store(old, CONTENT)
    long_ago = (datetime.now(timezone.utc) - timedelta(days=40)).isoformat()
    rewrite(lambda v: v.update(created=long_ago))(*content_and_record(cache))
    cache.store(new, CONTENT)
    assert cache.prune() == []
    assert cache.prune(older_than_days=50) == []
    removed = cache.prune(older_than_days=30)
    assert [entry.key['max_batch'] for entry in removed] == [1]
    assert cache.load(old) is None
    assert cache.load(new) == CONTENT


def test_prune_all_leaves_nothing_of_ours_and_all_that_is_not(cache):
    cache.store(KEY, CONTENT)
    cache.store(replace(KEY, max_batch=2), CONTENT)
    write_beside(cache.timing_file('Orin'), b'times')
    (cache.folder / 'notes.txt').write_text('mine')
    cache.prune()
    assert len(cache.entries()) == 2
    assert len(cache.prune(everything=True)) == 2
    assert names(cache) == ['notes.txt']
    assert cache.prune(everything=True) == []


def test_prune_removes_damaged_ones(cache):
    cache.store(KEY, CONTENT)
    flip(*content_and_record(cache))
    cache.store(replace(KEY, max_batch=2), CONTENT)
    (removed,) = cache.prune()
    assert 'sha256' in removed.damaged
    assert [entry.key['max_batch'] for entry in cache.entries()] == [2]


def test_temporary_files_without_a_lock_go_when_they_are_old(cache):
    cache.store(KEY, CONTENT)
    timing = cache.timing_file('Orin')
    for age in (10, 7200):
        path = timing.with_name(f'.{timing.name}.{age}.tmp')
        path.write_bytes(b'half')
        seconds = datetime.now().timestamp() - age
        os.utime(path, (seconds, seconds))
    mine = cache.folder / '.mine'
    mine.touch()
    os.utime(mine, (0, 0))
    cache.prune()
    hidden = [name for name in names(cache) if name.startswith('.')]
    assert hidden == ['.mine', f'.{timing.name}.10.tmp']


# --- where -----------------------------------------------------------------------------------


def test_the_default_folder(monkeypatch, tmp_path):
    for name in ('MTL_PERCEPTION_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert default_folder() == tmp_path / '.cache' / 'mtl_perception' / 'engines'
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
    assert default_folder() == tmp_path / '.cache' / 'mtl_perception' / 'engines'
    monkeypatch.setenv('XDG_CACHE_HOME', '/x')
    assert default_folder() == Path('/x/mtl_perception/engines')
    monkeypatch.setenv('MTL_PERCEPTION_CACHE', '/y')
    assert default_folder() == EngineCache().folder == Path('/y/engines')
    monkeypatch.setenv('MTL_PERCEPTION_CACHE', '~/z')
    assert default_folder() == tmp_path / 'z' / 'engines'
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MTL_PERCEPTION_CACHE', 'here')
    assert default_folder() == tmp_path / 'here' / 'engines'
    monkeypatch.setenv('MTL_PERCEPTION_CACHE', '')
    assert default_folder() == Path('/x/mtl_perception/engines')


def test_a_user_without_a_home(monkeypatch):
    for name in ('MTL_PERCEPTION_CACHE', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)
    assert default_folder().is_absolute()
