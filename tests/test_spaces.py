"""The file of one space: appended, torn, cut, flipped, missing."""

import os
import resource

import numpy as np
import pytest

from mmsearch.errors import InvalidInput, StoreDamaged
from mmsearch.spaces import BLOCK, SpaceFile

WIDTH = 4


@pytest.fixture
def space(tmp_path):
    return SpaceFile(tmp_path / "1-text-0.vectors", WIDTH, "float16")


def rows(n, start=0):
    return ((np.arange(n * WIDTH).reshape(n, WIDTH) + start * WIDTH) % 2039).astype(np.float16)


def test_rows_come_back_as_they_were_appended(space):
    crcs = space.append(0, {}, rows(3))
    space.append(3, crcs, rows(2, 3))
    assert np.array_equal(space.rows(5), rows(5))
    assert space.rows(5).dtype == np.float16
    assert space.rows(0).shape == (0, WIDTH)


def test_rows_cannot_be_written_through_the_map(space):
    space.append(0, {}, rows(3))
    assert not space.rows(3).flags.writeable


def test_checksums_do_not_depend_on_how_rows_were_divided_into_appends(space, tmp_path):
    n = 2 * BLOCK + 100
    at_once = SpaceFile(tmp_path / "other.vectors", WIDTH, "float16").append(0, {}, rows(n))
    crcs: dict[int, int] = {}
    for first, last in [(0, 1), (1, BLOCK - 1), (BLOCK - 1, BLOCK), (BLOCK, BLOCK + 1), (BLOCK + 1, n)]:
        crcs |= space.append(first, crcs, rows(n)[first:last])
    assert crcs == at_once
    assert space.damaged_blocks(n, crcs) == []


def test_the_torn_tail_of_an_append_that_nobody_acknowledged_is_ignored_and_written_over(space):
    crcs = space.append(0, {}, rows(3))
    space.append(3, crcs, rows(100, 50))  # never committed
    with space.file.open("ab") as stream:
        stream.write(b"\xff\xff\xff")  # and cut in the middle of a number
    assert np.array_equal(space.rows(3), rows(3))
    assert space.damaged_blocks(3, crcs) == []
    crcs |= space.append(3, crcs, rows(1, 3))
    assert np.array_equal(space.rows(4), rows(4))
    assert space.file.stat().st_size == 4 * space.row_bytes
    assert space.damaged_blocks(4, crcs) == []


def test_a_reader_of_the_committed_rows_is_not_disturbed_by_appends(space):
    crcs = space.append(0, {}, rows(3))
    mapped = space.rows(3)
    crcs |= space.append(3, crcs, rows(5000, 3))
    space.append(10, crcs, rows(2, 99))
    assert np.array_equal(mapped, rows(3))


@pytest.mark.parametrize("kept", [0, 1, 23])
def test_a_file_cut_shorter_than_committed_is_damage_that_names_the_file(space, kept):
    space.append(0, {}, rows(3))
    os.truncate(space.file, kept)
    with pytest.raises(StoreDamaged, match=r"1-text-0\.vectors.*expected at least 24 bytes, got"):
        space.rows(3)


def test_a_missing_file_is_damage_that_names_the_file(space):
    with pytest.raises(StoreDamaged, match=r"1-text-0\.vectors"):
        space.rows(1)


def test_appending_behind_rows_that_are_no_longer_there_is_refused(space):
    crcs = space.append(0, {}, rows(3))
    os.truncate(space.file, 2 * space.row_bytes)
    with pytest.raises(StoreDamaged, match=r"1-text-0\.vectors"):
        space.append(3, crcs, rows(1, 3))
    space.file.unlink()
    with pytest.raises(StoreDamaged, match=r"1-text-0\.vectors"):
        space.append(3, crcs, rows(1, 3))


@pytest.mark.parametrize("place", [0, BLOCK * WIDTH * 2 - 1, BLOCK * WIDTH * 2, -1])
@pytest.mark.parametrize("bit", [1, 128])
def test_a_flipped_bit_is_found_in_its_block_and_in_no_other(space, place, bit):
    n = BLOCK + 7
    crcs = space.append(0, {}, rows(n))
    data = bytearray(space.file.read_bytes())
    data[place] ^= bit
    space.file.write_bytes(data)
    assert space.damaged_blocks(n, crcs) == [0 if 0 <= place < BLOCK * space.row_bytes else 1]


def test_a_block_without_a_checksum_and_a_checksum_without_a_block_are_damage(space):
    crcs = space.append(0, {}, rows(3))
    assert space.damaged_blocks(3, {}) == [0]
    assert space.damaged_blocks(3, {**crcs, 1: 0}) == [1]


def test_vectors_are_on_disk_before_append_returns(space, monkeypatch):
    synced = []
    fsync = os.fsync

    def recorder(descriptor):
        status = os.fstat(descriptor)
        synced.append((status.st_ino, status.st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorder)
    space.append(0, {}, rows(3))
    file, folder = space.file.stat(), space.file.parent.stat()
    assert synced[0] == (file.st_ino, 3 * space.row_bytes)
    assert synced[1][0] == folder.st_ino  # and the name of the new file


@pytest.mark.parametrize("shape", [(2, WIDTH + 1), (WIDTH,), (1, 2, WIDTH)])
def test_rows_of_another_width_are_refused_and_nothing_is_written(space, shape):
    with pytest.raises(InvalidInput, match="width 4"):
        space.append(0, {}, np.zeros(shape, np.float32))
    assert not space.file.exists()


def test_a_copy_holds_the_kept_rows_in_order_with_checksums_of_its_own(space, tmp_path):
    n = 20_000
    space.append(0, {}, rows(n))
    keep = np.flatnonzero(np.arange(n) % 7 != 0)
    target = tmp_path / "1-text-1.vectors"
    target.write_bytes(b"left by a run that was killed" * 10_000)
    crcs = space.copy(keep, n, target)
    copy = SpaceFile(target, WIDTH, "float16")
    assert np.array_equal(copy.rows(len(keep)), rows(n)[keep])
    assert copy.damaged_blocks(len(keep), crcs) == []
    assert target.stat().st_size == len(keep) * space.row_bytes


def test_a_copy_of_nothing_is_an_empty_file(space, tmp_path):
    space.append(0, {}, rows(3))
    assert space.copy(np.empty(0, np.int64), 3, tmp_path / "1-text-1.vectors") == {}
    assert (tmp_path / "1-text-1.vectors").stat().st_size == 0


def test_opening_a_large_file_does_not_read_it(space):
    n = 50_000_000
    with space.file.open("wb") as stream:
        stream.truncate(n * space.row_bytes)  # sparse: 400 MB that take no room
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    mapped = space.rows(n)
    touched = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert len(mapped) == n
    assert touched < 1_000  # pages; the file has 97,657
