"""Rows on disk: what is found, what is not trusted, what several writers and a killed one leave."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from distgrad.features.store import FeatureStore, folder_bytes, make_room

SHAPE = (5, 3)


def keys_of(numbers: range) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in numbers]


def values_of(numbers: range, dtype: str = "float32") -> np.ndarray:
    return np.stack([np.random.default_rng(number).standard_normal(SHAPE).astype(dtype) for number in numbers])


def found_in(folder: Path, numbers: range, dtype: str = "float32") -> list[bool]:
    with FeatureStore(folder, SHAPE, dtype) as store:
        store.look_for(keys_of(numbers))
        places = store.locate(keys_of(numbers))
        there = [number for number, found in zip(numbers, places.found, strict=True) if found]
        rows = store.rows(store.locate([number.to_bytes(32, "big") for number in there]))
        for number, row in zip(there, rows, strict=True):
            assert row.tobytes() == values_of(range(number, number + 1), dtype).tobytes()
        return places.found.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_what_is_added_is_found_by_others_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    with FeatureStore(tmp_path / "a" / "b", SHAPE, dtype) as store:
        store.add(keys_of(range(4)), values_of(range(4), dtype))
        store.add(keys_of(range(4, 7)), values_of(range(4, 7), dtype))
        assert not store.locate(keys_of(range(1))).found.any()
        store.look_for(keys_of(range(7)))
        rows = store.rows(store.locate(keys_of(range(6, -1, -1))))
        assert rows.dtype == dtype and rows.tobytes() == values_of(range(7), dtype)[::-1].tobytes()
        assert store.nbytes == folder_bytes(tmp_path) > rows.nbytes
    assert found_in(tmp_path / "a" / "b", range(9), dtype) == [True] * 7 + [False] * 2


def test_rows_are_gathered_from_several_files_and_from_memory(tmp_path: Path) -> None:
    stores = [FeatureStore(tmp_path, SHAPE, "float32") for _ in range(3)]
    for number, store in enumerate(stores):
        store.add(keys_of(range(10 * number, 10 * number + 10)), values_of(range(10 * number, 10 * number + 10)))
    assert len(list(tmp_path.glob("*.rows"))) == 3, "each writer has its own"
    order = np.random.default_rng(0).permutation(31).tolist()
    stores[0].keep(keys_of(range(30, 31)), values_of(range(30, 31)))
    stores[0].look_for(keys_of(range(30)))
    rows = stores[0].rows(stores[0].locate([number.to_bytes(32, "big") for number in order]))
    assert np.array_equal(rows, values_of(range(31))[order])
    assert stores[0].rows(stores[0].locate([])).shape == (0, *SHAPE)
    for store in stores:
        store.close()
        store.close()
    with FeatureStore(tmp_path, SHAPE, "float32") as store:
        store.add(keys_of(range(40, 41)), values_of(range(40, 41)))
        assert len(list(tmp_path.glob("*.rows"))) == 3, "a file that nobody writes to any more is taken over"


def test_a_row_that_is_not_there_is_never_made_up(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, SHAPE, "float32") as store:
        store.add(keys_of(range(2)), values_of(range(2)))
        store.look_for(keys_of(range(3)))
        with pytest.raises(KeyError, match="a row that was not found was asked for"):
            store.rows(store.locate(keys_of(range(3))))
        with pytest.raises(
            ValueError, match=r"2 rows of \(5, 3\) float32 are needed, got an array \(2, 5, 3\) float64"
        ):
            store.add(keys_of(range(2)), values_of(range(2), "float64"))
        with pytest.raises(ValueError, match="keys have 32 bytes, got"):
            store.add([b"short"], values_of(range(1)))


def test_another_shape_or_dtype_in_the_same_folder_is_not_mistaken(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, SHAPE, "float32") as store:
        store.add(keys_of(range(4)), values_of(range(4)))
    for shape, dtype in (((3, 5), "float32"), (SHAPE, "int32"), (SHAPE, "float64")):
        with FeatureStore(tmp_path, shape, dtype) as store:
            store.look_for(keys_of(range(4)))
            assert not store.locate(keys_of(range(4))).found.any()


def test_any_flipped_byte_loses_one_row_and_no_other(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, SHAPE, "float32") as store:
        store.add(keys_of(range(3)), values_of(range(3)))
    [path] = tmp_path.glob("*.rows")
    whole = path.read_bytes()
    record = (len(whole) - 512) // 3
    for offset in (0, 31, 32, 47, 64, 64 + 59):  # key, checksum, values
        damaged = bytearray(whole)
        damaged[512 + record + offset] ^= 0x40
        path.write_bytes(damaged)
        assert found_in(tmp_path, range(3)) == [True, False, True], offset
    with FeatureStore(tmp_path, SHAPE, "float32") as store:  # and what is computed anew counts
        store.add(keys_of(range(1, 2)), values_of(range(1, 2)))
    assert found_in(tmp_path, range(3)) == [True] * 3


def test_cut_at_any_length_the_whole_rows_stay_and_new_ones_follow(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, SHAPE, "float32") as store:
        store.add(keys_of(range(3)), values_of(range(3)))
    [path] = tmp_path.glob("*.rows")
    whole = path.read_bytes()
    record = (len(whole) - 512) // 3
    for length in (0, 5, 511, 512, 513, 512 + record - 1, 512 + record, 512 + 2 * record + 17, len(whole) - 1):
        for other in tmp_path.glob("*.rows"):
            other.unlink()
        path.write_bytes(whole[:length])
        kept = max(0, length - 512) // record
        assert found_in(tmp_path, range(3)) == [number < kept for number in range(3)], length
        with FeatureStore(tmp_path, SHAPE, "float32") as store:
            store.add(keys_of(range(5, 6)), values_of(range(5, 6)))
        assert found_in(tmp_path, range(6)) == [number < kept or number == 5 for number in range(6)], length


def test_foreign_files_are_neither_read_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder.rows").mkdir()
    with FeatureStore(tmp_path, SHAPE, "float32") as store:
        store.add(keys_of(range(2)), values_of(range(2)))
    assert found_in(tmp_path, range(2)) == [True, True]
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "folder.rows").is_dir()


WRITER = """
import sys
import numpy as np
from pathlib import Path
from distgrad.features.store import FeatureStore
store = FeatureStore(Path(sys.argv[1]), (200, 100), "float32")
start, number = int(sys.argv[2]), 0
while number < 400:
    values = np.full((2, 200, 100), start + number, "float32")
    values[1] += 1
    store.add([(start + number + i).to_bytes(32, "big") for i in range(2)], values)
    number += 2
    print(number, flush=True)
"""


def rows_of_writers(folder: Path, numbers: range) -> list[int]:
    with FeatureStore(folder, (200, 100), "float32") as store:
        keys = keys_of(numbers)
        store.look_for(keys)
        places = store.locate(keys)
        there = [number for number, found in zip(numbers, places.found, strict=True) if found]
        rows = store.rows(store.locate([number.to_bytes(32, "big") for number in there]))
        assert all((row == number).all() for number, row in zip(there, rows, strict=True))
        return there


def test_killed_in_the_middle_nothing_whole_is_lost_and_nothing_half_is_found(tmp_path: Path) -> None:
    for attempt in range(3):
        start = 1000 * attempt
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(start)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(3 + attempt):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        written = [int(line) for line in writer.stdout.read().split()]
        writer.wait()
        there = rows_of_writers(tmp_path, range(start, start + 400))
        assert len(there) >= max([2 * (3 + attempt), *written]) and there == list(range(start, start + len(there)))
    assert len(list(tmp_path.glob("*.rows"))) == 1, "each went on in the file of the one before"


def test_writers_and_a_reader_at_once(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(start)], stdout=subprocess.DEVNULL)
        for start in (0, 200, 5000)  # two of them add some of the same rows
    ]
    most = 0
    while any(writer.poll() is None for writer in writers):
        now = len(rows_of_writers(tmp_path, range(6000)))
        assert now >= most
        most = now
    assert all(writer.returncode == 0 for writer in writers)
    assert rows_of_writers(tmp_path, range(6000)) == [*range(600), *range(5000, 5400)]


def test_a_full_disk_warns_once_and_loses_nothing(tmp_path: Path) -> None:
    """RLIMIT_FSIZE fails a write in the middle, as a full disk or a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FeatureStore(tmp_path, SHAPE, "float32") as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
        try:
            store.add(keys_of(range(4)), values_of(range(4)))
            with pytest.warns(
                UserWarning, match=r"the feature cache .* cannot be used \(File too large\): .*Make room"
            ):
                store.add(keys_of(range(4, 12)), values_of(range(4, 12)))
            store.add(keys_of(range(12, 14)), values_of(range(12, 14)))  # no second warning
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        store.look_for(keys_of(range(14)))
        assert np.array_equal(store.rows(store.locate(keys_of(range(14)))), values_of(range(14)))
        assert all(path.stat().st_size <= 1500 for path in tmp_path.glob("*.rows"))
    assert found_in(tmp_path, range(14)) == [True] * 4 + [False] * 10


@pytest.mark.parametrize("obstacle", ["a file", "below a file"])
def test_a_place_that_cannot_be_a_folder_warns_and_keeps_all_in_memory(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / "x").touch()
    with pytest.warns(UserWarning, match="features are kept in memory"):
        store = FeatureStore(tmp_path / "x" / ("" if obstacle == "a file" else "y"), SHAPE, "float32")
    store.add(keys_of(range(3)), values_of(range(3)))
    store.look_for(keys_of(range(3)))
    assert np.array_equal(store.rows(store.locate(keys_of(range(3)))), values_of(range(3)))
    assert store.nbytes == 0


def test_without_a_folder_all_is_in_memory() -> None:
    with FeatureStore(None, (), "float32") as store:
        store.add(keys_of(range(3)), np.arange(3, dtype="float32"))
        store.look_for(keys_of(range(3)))
        assert store.rows(store.locate(keys_of(range(3)))).tolist() == [0, 1, 2]


def filled(folder: Path, rows: int, used_at: float) -> None:
    with FeatureStore(folder, SHAPE, "float32") as store:
        store.add(keys_of(range(rows)), values_of(range(rows)))
    os.utime(folder / "lock", (used_at, used_at))


def test_room_is_made_by_removing_what_was_not_used_for_longest(tmp_path: Path) -> None:
    for name, used_at in (("old", 1000.0), ("older", 500.0), ("new", 2000.0)):
        filled(tmp_path / name, 10, used_at)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.rows").write_bytes(b"x" * 100_000)  # no lock: not a store's
    each = folder_bytes(tmp_path / "new")
    assert make_room(tmp_path, 3 * each) == []
    assert make_room(tmp_path, 2 * each) == [tmp_path / "older"]
    with FeatureStore(tmp_path / "old", SHAPE, "float32") as store:  # in use: stays, and is now the newest
        assert make_room(tmp_path, 0) == [tmp_path / "new"]
        store.look_for(keys_of(range(10)))
        assert store.locate(keys_of(range(10))).found.all()
    assert make_room(tmp_path, 0) == [tmp_path / "old"]
    assert make_room(tmp_path, 0) == [] and (tmp_path / "mine" / "photo.rows").exists()
    assert make_room(tmp_path / "nowhere", 0) == []


def test_a_store_is_opened_while_others_make_room(tmp_path: Path) -> None:
    stop = threading.Event()

    def remover() -> None:
        while not stop.is_set():
            make_room(tmp_path, 0)

    thread = threading.Thread(target=remover)
    thread.start()
    try:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            with FeatureStore(tmp_path / "contested", SHAPE, "float32") as store:
                store.add(keys_of(range(2)), values_of(range(2)))
                store.look_for(keys_of(range(2)))
                assert np.array_equal(store.rows(store.locate(keys_of(range(2)))), values_of(range(2)))
    finally:
        stop.set()
        thread.join()
