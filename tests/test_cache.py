import dataclasses
import doctest
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from acoustic import cache as module
from acoustic.cache import Cache, disk, entry_file, keys, make_key
from acoustic.errors import InternalError
from acoustic.records import CacheEntry, MelSpec

ROOT = Path(module.__file__).parents[2]
KEY = make_key("song")


def entry_of(value=1.0, n=4, **meta):
    return CacheEntry({"x": np.full(n, value, dtype=np.float32)}, meta)


def files_in(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def on_disk(folder):
    """A cache that holds nothing in memory, so that every hit comes from the disk."""
    return Cache(folder, max_entries=0)


def assert_equal(entry, expected):
    assert entry is not None
    assert entry.meta == expected.meta
    assert list(entry.arrays) == list(expected.arrays)
    for name, array in expected.arrays.items():
        assert entry.arrays[name].dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(entry.arrays[name], array)
        assert entry.arrays[name].shape == array.shape


# --- keys ---

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
parts = st.lists(st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6), max_size=4)


def described(value):
    """The value with its types, as text: equal exactly for what must be the same key."""
    if isinstance(value, (tuple, list)):
        return f"({','.join(described(item) for item in value)})"
    return f"{type(value).__name__}:{value!r}"


@settings(deadline=None)
@given(parts, parts)
@example(["ab", "c"], ["a", "bc"])
@example([("a",), "b"], [("a", "b")])
@example([1], [1.0])
@example([1], [True])
@example([""], [])
@example([None], ["None"])
@example(["a"], [b"a"])
def test_keys_are_equal_exactly_for_equal_parts(a, b):
    assert (make_key(*a) == make_key(*b)) == (described(a) == described(b))


def test_keys_of_records_tell_every_field_and_every_class():
    @dataclasses.dataclass(frozen=True)
    class Other:
        n: int = 1

    @dataclasses.dataclass(frozen=True)
    class Same:
        n: int = 1

    spec = MelSpec()
    changed = [dataclasses.replace(spec, **{f.name: 7}) for f in dataclasses.fields(spec)]
    keys = {make_key("mel", record) for record in [spec, *changed, Other(), Same(), Other(2)]}
    assert len(keys) == len(changed) + 4
    assert make_key("mel", MelSpec()) == make_key("mel", spec)


def test_keys_do_not_change_between_processes_or_versions():
    """Caches outlive a process: this value is pinned, and a change of the encoding must be deliberate."""
    assert make_key("votes", 3, 0.5, None, (True, "ü")) == "760744a1ead8980e1b572eb3e67a88ba619ec0d1"


def test_keys_of_other_types_are_refused():
    @dataclasses.dataclass
    class Mutable:
        n: int = 1

    for value in ([1], {"a": 1}, Mutable(), MelSpec, np.float32(1), np.zeros(2), Path("a")):
        with pytest.raises(InternalError, match="cannot be made of"):
            make_key(value)


@pytest.mark.parametrize("key", ["", "ab", "../../../etc/passwd", "G" * 40, "A" * 40, "a" * 40 + "\n", "a/" * 20])
def test_only_hex_is_a_key(tmp_path, key):
    for use in (Cache(tmp_path).get, lambda k: Cache(tmp_path).put(k, entry_of())):
        with pytest.raises(InternalError, match="hex digits"):
            use(key)


# --- what goes in comes out ---

dtypes = st.sampled_from(["?", "i1", "u1", "<i2", ">i4", "<i8", "<u2", "<u8", "<f2", "<f4", ">f8"])
arrays = dtypes.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5), arrays, max_size=3), st.dictionaries(st.text(), json_values, max_size=3))
def test_memory_and_disk_give_back_what_was_put(tmp_path, named, meta):
    entry = CacheEntry(named, meta)
    writer = Cache(tmp_path)
    writer.put(KEY, entry)
    assert_equal(writer.get(KEY), entry)
    assert_equal(on_disk(tmp_path).get(KEY), entry)


def test_strided_arrays_keep_their_values(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    entry = CacheEntry({"t": x.T, "step": x[::2, ::3], "back": x[::-1], "scalar": np.float64(2.5)})
    Cache(tmp_path).put(KEY, entry)
    got = on_disk(tmp_path).get(KEY).arrays
    np.testing.assert_array_equal(got["t"], x.T)
    np.testing.assert_array_equal(got["step"], x[::2, ::3])
    np.testing.assert_array_equal(got["back"], x[::-1])
    assert got["scalar"] == 2.5


@pytest.mark.parametrize("source", ["computed", "memory", "disk"])
def test_arrays_are_read_only_and_nobody_shares_them(tmp_path, source):
    mine = np.zeros(3, dtype=np.float32)
    kept = Cache(tmp_path)
    entry, _ = kept.get_or_compute(KEY, lambda: CacheEntry({"x": mine}, {"list": [1]}))
    if source != "computed":
        entry = (kept if source == "memory" else on_disk(tmp_path)).get(KEY)
    mine[:] = 9
    np.testing.assert_array_equal(entry.arrays["x"], 0)
    with pytest.raises(ValueError, match="read-only"):
        entry.arrays["x"][0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        entry.arrays["x"].setflags(write=True)
    entry.meta["list"].append(2)
    entry.arrays.clear()
    assert kept.get(KEY).meta == {"list": [1]}
    assert list(kept.get(KEY).arrays) == ["x"]


def test_meta_looks_the_same_from_everywhere(tmp_path):
    kept = Cache(tmp_path)
    computed, hit = kept.get_or_compute(KEY, lambda: entry_of(pair=(1, 2.5)))
    assert not hit
    assert computed.meta == kept.get(KEY).meta == on_disk(tmp_path).get(KEY).meta == {"pair": [1, 2.5]}


def test_what_is_no_number_or_no_json_is_refused(tmp_path):
    kept = Cache(tmp_path)
    for bad in (
        np.array(["a"]),
        np.array([object()]),
        np.array([1j]),
        np.zeros(2, "f4,i4"),
        np.array(["2024"], "M8[Y]"),
    ):
        with pytest.raises(InternalError, match="dtype"):
            kept.put(KEY, CacheEntry({"bad": bad}))
    with pytest.raises(InternalError, match="not JSON"):
        kept.put(KEY, entry_of(bad=object()))
    assert kept.get(KEY) is None
    assert files_in(tmp_path) == []


# --- files that cannot be trusted ---


def good_file():
    return entry_file.encode(KEY, CacheEntry({"x": np.arange(3, dtype=np.int16)}, {"a": 1}))


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """(folder, put(bytes)): `put` places a file where the entry of KEY is looked for."""
    folder = tmp_path_factory.mktemp("spoiled")
    path = folder / "entries" / KEY[0] / KEY[1] / f"{KEY}.entry"
    path.parent.mkdir(parents=True)

    def put(data):
        path.write_bytes(data)
        return path

    return folder, put


def assert_a_miss_that_is_removed(spoiled, data):
    folder, put = spoiled
    path = put(data)
    kept = on_disk(folder)
    assert kept.get(KEY) is None
    assert not path.exists()
    assert kept.stats()["n_corrupt"] == 1
    assert kept.stats()["n_disk_errors"] == 0


def test_the_good_file_is_a_hit(spoiled):
    folder, put = spoiled
    put(good_file())
    assert on_disk(folder).get(KEY).meta == {"a": 1}


def test_a_file_torn_at_any_byte_is_a_miss_and_is_removed(spoiled):
    data = good_file()
    for length in range(len(data)):
        assert_a_miss_that_is_removed(spoiled, data[:length])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(good_file()) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_a_miss_and_is_removed(spoiled, position, bit):
    data = bytearray(good_file())
    data[position] ^= 1 << bit
    assert_a_miss_that_is_removed(spoiled, bytes(data))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.binary(min_size=1, max_size=50).map(lambda extra: good_file() + extra))
def test_a_foreign_file_is_a_miss_and_is_removed(spoiled, data):
    assert_a_miss_that_is_removed(spoiled, data)


def forged(**changes):
    """A file with a right checksum over a wrong description."""
    array = {"name": "x", "dtype": "<i2", "shape": [3], "offset": 0, **changes.pop("array", {})}
    header = json.dumps({"key": KEY, "meta": {}, "arrays": [array], **changes}).encode()
    body = entry_file.PREFIX.pack(entry_file.MAGIC, len(header)) + header + bytes(64)
    return body + entry_file._checksum(body)


def test_forging_as_such_works(spoiled):
    folder, put = spoiled
    put(forged())
    assert on_disk(folder).get(KEY).arrays["x"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "data",
    [
        forged(array={"dtype": "|O"}),
        forged(array={"dtype": "<M8[s]"}),
        forged(array={"dtype": "i2,i2"}),
        forged(array={"dtype": ["<i2"]}),
        forged(array={"shape": [-3]}),
        forged(array={"shape": [10**6]}),
        forged(array={"shape": [2**62, 2**62]}),
        forged(array={"shape": [0, 2**80]}),
        forged(array={"shape": [0] * 100}),
        forged(array={"shape": [1.5]}),
        forged(array={"shape": [True]}),
        forged(array={"shape": None}),
        forged(array={"shape": "3"}),
        forged(array={"offset": -8}),
        forged(array={"offset": 64}),
        forged(array={"offset": 10**30}),
        forged(arrays=3),
        forged(arrays=[7]),
        forged(meta=[1]),
        forged(meta=None),
        forged(key=make_key("another song")),
    ],
)
def test_a_right_checksum_over_a_wrong_description_is_a_miss(spoiled, data):
    assert_a_miss_that_is_removed(spoiled, data)


def test_deep_json_is_a_miss(spoiled):
    header = b"[" * 200_000
    body = entry_file.PREFIX.pack(entry_file.MAGIC, len(header)) + header
    assert_a_miss_that_is_removed(spoiled, body + entry_file._checksum(body))


def test_an_entry_under_another_name_is_a_miss(tmp_path):
    """A file that was renamed is whole, but answers another question."""
    kept = on_disk(tmp_path)
    kept.put(KEY, entry_of(1.0))
    other = make_key("other")
    moved = tmp_path / "entries" / other[0] / other[1] / f"{other}.entry"
    moved.parent.mkdir(parents=True)
    files_in(tmp_path)[0].rename(moved)
    assert kept.get(other) is None
    assert not moved.exists()


def test_pipes_links_and_folders_in_place_of_a_file_neither_block_nor_mislead(tmp_path):
    kept = on_disk(tmp_path)
    kept.put(KEY, entry_of())
    path = files_in(tmp_path)[0]
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    for make in (lambda: path.symlink_to(elsewhere), lambda: os.mkfifo(path)):
        make()
        assert kept.get(KEY) is None
        assert not path.exists()
    assert elsewhere.exists()
    path.mkdir()
    kept.put(KEY, entry_of())
    assert kept.get(KEY) is None
    assert kept.stats()["n_disk_errors"] == 1


# --- bounds ---


def test_memory_keeps_the_entries_that_were_used_last():
    kept = Cache(None, max_entries=3)
    keys = [make_key(i) for i in range(4)]
    for key in keys[:3]:
        kept.put(key, entry_of())
    kept.get(keys[0])
    kept.put(keys[3], entry_of())
    assert [kept.get(key) is not None for key in keys] == [True, False, True, True]


def test_memory_is_bounded_in_bytes_too():
    kept = Cache(None, max_memory_mb=1.0)
    for i in range(40):
        kept.put(make_key(i), entry_of(n=25_000))  # 100 kB
        assert kept.stats()["memory_mb"] <= 1.0
    assert 8 <= kept.stats()["n_entries"] <= 10
    kept.put(make_key("huge"), entry_of(n=500_000))
    assert kept.get(make_key("huge")) is None
    assert kept.get(make_key(39)) is not None


def size_of(folder):
    total = 0
    for path in files_in(folder):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # evicted between listing and looking
            continue
    return total


@pytest.mark.parametrize("n", [1_500, 4_000, 60_000])
def test_disk_stays_below_its_bound_after_every_put(tmp_path, n):
    kept = Cache(tmp_path, max_mb=1.0, max_entries=0)
    n_puts = 2 * 2**20 // (4 * n + 4096) + 4
    for i in range(n_puts):
        kept.put(make_key(i), entry_of(i, n=n))
        assert size_of(tmp_path) <= 2**20
    assert size_of(tmp_path) >= 2**20 // 4  # and it is used
    assert kept.stats()["n_evicted"] > 0
    assert kept.stats()["n_disk_errors"] == 0
    assert kept.get(make_key(n_puts - 1)) is not None


def test_disk_keeps_the_entries_that_were_used_last(tmp_path):
    kept = Cache(tmp_path, max_mb=1.0, max_entries=0)
    used = make_key("used")
    kept.put(used, entry_of(n=2_000))
    kept.put(make_key("unused"), entry_of(n=2_000))
    for i in range(200):
        kept.put(make_key(i), entry_of(n=2_000))
        assert kept.get(used) is not None
    assert kept.get(make_key("unused")) is None


def test_a_hit_in_memory_marks_the_file_as_used(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TOUCH_S", -1.0)
    kept = Cache(tmp_path)
    kept.put(KEY, entry_of())
    path = files_in(tmp_path)[0]
    os.utime(path, ns=(0, 0))
    kept.get(KEY)
    assert path.stat().st_mtime_ns > 0


def test_what_an_earlier_process_left_counts(tmp_path):
    for i in range(60):
        Cache(tmp_path, max_mb=100, max_entries=0).put(make_key(i), entry_of(n=8_000))
    assert size_of(tmp_path) > 2**20
    later = Cache(tmp_path, max_mb=1.0)
    assert later.stats()["disk_mb"] > 1.0
    later.put(KEY, entry_of())
    assert size_of(tmp_path) <= 2**20
    assert later.get(KEY) is not None


def test_the_folder_is_not_read_at_every_put(tmp_path, monkeypatch):
    looks = []
    files = disk.Disk._files
    monkeypatch.setattr(disk.Disk, "_files", lambda self: looks.append(1) or files(self))
    kept = Cache(tmp_path, max_mb=64.0, max_entries=0)
    for i in range(100):
        kept.put(make_key(i), entry_of())
    assert len(looks) == 1


def test_an_entry_larger_than_the_bound_is_not_written(tmp_path):
    kept = Cache(tmp_path, max_mb=1.0)
    kept.put(make_key("small"), entry_of())
    kept.put(KEY, entry_of(n=2**20))
    assert kept.get(KEY) is not None  # memory has it
    assert on_disk(tmp_path).get(KEY) is None
    assert on_disk(tmp_path).get(make_key("small")) is not None


def test_files_of_dead_writers_are_swept_and_those_of_living_ones_stay(tmp_path):
    folder = tmp_path / "entries" / "a" / "b"
    folder.mkdir(parents=True)
    dead, living = folder / ".aside-dead", folder / ".aside-living"
    dead.touch()
    living.touch()
    os.utime(dead, (0, 0))
    Cache(tmp_path).put(KEY, entry_of())
    assert not dead.exists()
    assert living.exists()


def test_files_that_are_not_ours_are_never_touched(tmp_path):
    kept = Cache(tmp_path, max_mb=0.1, max_entries=0)
    kept.put(KEY, entry_of())
    theirs = [tmp_path / "song.flac", tmp_path / "entries" / "notes.txt", tmp_path / "entries" / "a" / "b" / "x.entry"]
    theirs += [
        tmp_path / "entries" / "Bach" / "1" / f"{KEY}.entry",
        tmp_path / "entries" / "1" / "Suites" / f"{KEY}.entry",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
        os.utime(path, (0, 0))
    for i in range(50):
        kept.put(make_key(i), entry_of(n=1_000))
    kept.clear()
    assert files_in(tmp_path) == sorted(theirs)


# --- trouble with the disk ---


def test_a_deleted_folder_costs_only_the_hits(tmp_path):
    kept = on_disk(tmp_path)
    kept.put(KEY, entry_of())
    shutil.rmtree(tmp_path)
    assert kept.get(KEY) is None
    kept.put(KEY, entry_of(2.0))
    assert kept.get(KEY).arrays["x"][0] == 2.0
    assert kept.stats()["n_disk_errors"] == 0


def test_a_folder_that_is_deleted_while_it_is_written(tmp_path, monkeypatch):
    """Once between making the folder and renaming: tried again. Always: counted, and never an exception."""
    replace, deleted = os.replace, []

    def delete_first(source, target, *, always=False):
        if always or not deleted:
            deleted.append(1)
            shutil.rmtree(tmp_path)
        replace(source, target)

    kept = Cache(tmp_path)
    monkeypatch.setattr(disk.os, "replace", delete_first)
    kept.put(KEY, entry_of(1.0))
    assert on_disk(tmp_path).get(KEY) is not None
    assert kept.stats()["n_disk_errors"] == 0
    monkeypatch.setattr(disk.os, "replace", lambda s, t: delete_first(s, t, always=True))
    kept.put(make_key("next"), entry_of(2.0))
    assert kept.stats()["n_disk_errors"] == 1
    assert kept.get(make_key("next")).arrays["x"][0] == 2.0


def test_deletion_under_way_in_threads(tmp_path):
    kept = Cache(tmp_path, max_mb=1.0, max_entries=0)
    stop = threading.Event()

    def delete():
        while not stop.is_set():
            shutil.rmtree(tmp_path / "entries", ignore_errors=True)

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        for i in range(300):
            entry, _ = kept.get_or_compute(make_key(i % 7), lambda i=i: entry_of(i % 7, n=2_000))
            assert entry.arrays["x"][0] == i % 7
    finally:
        stop.set()
        deleter.join()


@pytest.mark.parametrize("where", ["mkstemp", "write", "replace"])
def test_a_full_disk_leaves_memory_working_and_is_reported(tmp_path, monkeypatch, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    class FullFile:
        def __init__(self, handle, mode):
            self._handle = handle

        def __enter__(self):
            return self

        def __exit__(self, *_):
            os.close(self._handle)

        write = staticmethod(full)

    if where == "mkstemp":
        monkeypatch.setattr(disk.tempfile, "mkstemp", full)
    elif where == "replace":
        monkeypatch.setattr(disk.os, "replace", full)
    else:
        monkeypatch.setattr(disk, "open", FullFile, raising=False)
    kept = Cache(tmp_path)
    assert not kept.get_or_compute(KEY, entry_of)[1]
    assert kept.get_or_compute(KEY, entry_of)[1]
    stats = kept.stats()
    assert stats["n_disk_errors"] == 1
    assert "No space left" in stats["last_disk_error"]
    assert files_in(tmp_path) == []  # nothing half-written stays


def test_a_folder_that_can_only_be_read_still_gives_hits(tmp_path, monkeypatch):
    Cache(tmp_path).put(KEY, entry_of(3.0))

    def refused(*_, **__):
        raise PermissionError(errno.EROFS, "Read-only file system")

    for owner, name in [
        (os, "utime"),
        (os, "replace"),
        (disk.tempfile, "mkstemp"),
        (Path, "unlink"),
        (Path, "mkdir"),
    ]:
        monkeypatch.setattr(owner, name, refused)
    kept = Cache(tmp_path)
    assert kept.get(KEY).arrays["x"][0] == 3.0
    assert kept.stats()["n_disk_errors"] == 0
    kept.put(make_key("new"), entry_of())
    assert kept.get(make_key("new")) is not None
    assert kept.stats()["n_disk_errors"] == 1


def test_a_full_cache_whose_files_cannot_be_removed_does_not_grow(tmp_path, monkeypatch):
    Cache(tmp_path, max_mb=100).put(KEY, entry_of(n=300_000))
    kept = Cache(tmp_path, max_mb=1.0)
    before = size_of(tmp_path)
    monkeypatch.setattr(disk.Disk, "_remove", lambda self, path: False)
    kept.put(make_key("new"), entry_of())
    assert size_of(tmp_path) == before
    assert "full" in kept.stats()["last_disk_error"]


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    kept = Cache(tmp_path / "cache")
    kept.put(KEY, entry_of())
    assert kept.get(KEY) is not None
    assert kept.get(make_key("other")) is None
    assert kept.stats()["n_disk_errors"] == 2
    assert (tmp_path / "cache").read_text() == "not a folder"


def test_nothing_is_touched_before_the_first_put(tmp_path):
    kept = Cache(tmp_path / "cache")
    assert kept.get(KEY) is None
    assert kept.stats()["n_misses"] == 1
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("options", [{"folder": None}, {"max_mb": 0}])
def test_memory_only(tmp_path, options):
    kept = Cache(**{"folder": tmp_path, **options})
    kept.put(KEY, entry_of())
    assert kept.get(KEY) is not None
    assert kept.stats()["disk"] is False
    assert files_in(tmp_path) == []


# --- computing once ---


class Counted:
    def __init__(self):
        self.n, self._lock = 0, threading.Lock()

    def __call__(self):
        with self._lock:
            self.n += 1
        time.sleep(0.02)  # long enough for the other threads to arrive
        return entry_of(5.0)


def run_threads(n, function):
    results, ready = [], threading.Barrier(n)

    def work():
        ready.wait()
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("max_entries", [100, 0])
@pytest.mark.parametrize("disk", [True, False])
def test_many_threads_compute_once(tmp_path, max_entries, disk):
    """Also where nothing can be kept: those who wait get what the first one found."""
    kept, compute = Cache(tmp_path if disk else None, max_entries=max_entries), Counted()
    results = run_threads(8, lambda: kept.get_or_compute(KEY, compute))
    assert compute.n == 1
    assert sorted(hit for _, hit in results) == [False] + [True] * 7
    assert {float(entry.arrays["x"][0]) for entry, _ in results} == {5.0}
    assert kept._flights == {}
    stats = kept.stats()
    assert (stats["n_misses"], stats["n_memory_hits"] + stats["n_disk_hits"]) == (1, 7)


def test_a_thread_that_looked_too_early_finds_what_landed_meanwhile(tmp_path, monkeypatch):
    """Between its look (a miss) and its turn, another thread has computed and gone."""
    kept, compute = Cache(tmp_path), Counted()
    find = kept._find

    def find_and_be_overtaken(key):
        monkeypatch.setattr(kept, "_find", find)
        missed = find(key)
        run_threads(1, lambda: kept.get_or_compute(KEY, compute))
        return missed

    monkeypatch.setattr(kept, "_find", find_and_be_overtaken)
    assert kept.get_or_compute(KEY, compute)[1]
    assert compute.n == 1


def test_different_keys_are_computed_at_the_same_time():
    kept, together = Cache(None), threading.Barrier(2, timeout=30)

    def compute():
        together.wait()  # passes only if both are inside
        return entry_of()

    keys = iter([make_key("a"), make_key("b")])
    results = run_threads(2, lambda: kept.get_or_compute(next(keys), compute))
    assert [hit for _, hit in results] == [False, False]


def test_exceptions_propagate_and_are_not_kept(tmp_path):
    kept = Cache(tmp_path)

    def fail():
        raise KeyError("decoder")

    for _ in range(2):
        with pytest.raises(KeyError, match="decoder"):
            kept.get_or_compute(KEY, fail)
    assert kept.get(KEY) is None
    assert kept._flights == {}
    assert not kept.get_or_compute(KEY, entry_of)[1]


def test_after_an_exception_the_next_in_line_tries():
    kept, tries = Cache(None), []

    def fails_first():
        tries.append(1)
        time.sleep(0.02)
        if len(tries) == 1:
            raise OSError("once")
        return entry_of()

    results = run_threads(5, lambda: kept.get_or_compute(KEY, fails_first))
    assert len(tries) == 2
    assert sum(isinstance(result, OSError) for result in results) == 1
    assert sum(not isinstance(result, OSError) and result[1] for result in results) == 3


# --- several processes ---

WORKER = """
import sys
import numpy as np
from pathlib import Path
from acoustic.cache import Cache, make_key
from acoustic.records import CacheEntry

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
kept = Cache(folder, max_mb=2.0, max_entries=0)
rng = np.random.default_rng(seed)
for _ in range(400):
    i = int(rng.integers(60))
    make = lambda: CacheEntry({"x": np.full(4_000, i, np.int64)}, {"i": i})
    entry, hit = kept.get_or_compute(make_key("shared", i), make)
    assert entry.meta == {"i": i} and (entry.arrays["x"] == i).all() and len(entry.arrays["x"]) == 4_000, entry
stats = kept.stats()
assert stats["n_corrupt"] == 0 and stats["n_disk_errors"] == 0, stats
assert stats["n_disk_hits"] > 0, stats
"""


def test_two_processes_share_a_folder(tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen([*command, str(seed)], cwd=ROOT, stderr=subprocess.PIPE, text=True) for seed in (1, 2)]
    sizes = []
    while any(worker.poll() is None for worker in workers):
        sizes.append(size_of(tmp_path))
        time.sleep(0.01)
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors
    assert max(sizes) <= 2 * 2**20
    assert [path.suffix for path in files_in(tmp_path) if path.suffix != ".entry"] == []


# --- the rest ---


def test_stats_count_what_happened(tmp_path):
    kept = Cache(tmp_path)
    assert kept.stats()["hit_rate"] == 0.0
    kept.get(KEY)
    kept.put(KEY, entry_of())
    kept.get(KEY)
    kept.get_or_compute(KEY, entry_of)
    kept.get_or_compute(make_key("b"), entry_of)
    stats = kept.stats()
    assert (stats["n_memory_hits"], stats["n_disk_hits"], stats["n_misses"]) == (2, 0, 2)
    assert stats["hit_rate"] == 0.5
    assert stats["n_entries"] == 2
    assert stats["disk_mb"] == 2 * 4096 / 2**20
    fresh = Cache(tmp_path)
    fresh.get(KEY)
    fresh.get(KEY)
    assert (fresh.stats()["n_disk_hits"], fresh.stats()["n_memory_hits"]) == (1, 1)
    json.dumps(stats)


def test_clear_forgets_everywhere(tmp_path):
    kept = Cache(tmp_path)
    kept.put(KEY, entry_of())
    kept.clear()
    assert kept.get(KEY) is None
    assert files_in(tmp_path) == []
    assert kept.stats()["n_entries"] == 0
    kept.put(KEY, entry_of())
    assert on_disk(tmp_path).get(KEY) is not None


def test_examples_in_docstrings():
    result = doctest.testmod(keys)
    assert result.attempted
    assert result.failed == 0
