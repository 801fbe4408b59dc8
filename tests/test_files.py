"""Reading bytes safely, from the file system and from zip files, and writing them for good."""

import os
import shutil
import struct
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmsearch import files
from mmsearch.errors import PictureError
from mmsearch.files import atomic_write, content_hash, display_name, fsync_folder, read_bytes, split_member

LIMIT = 1 << 20
posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs, devices and byte names")


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inner/a.webp", b"aaa" * 1000)
        packed.writestr("überblick 🐙.jpg", b"octopus")
        packed.writestr("empty/", b"")
        packed.writestr("large.bin", bytes(LIMIT + 1))
    return path


def test_a_file_is_read_whole(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\x00\r\n\x1a" * 100)
    assert read_bytes(tmp_path / "a.bin", LIMIT) == b"\x00\r\n\x1a" * 100


def test_an_empty_file_is_read_as_no_bytes(tmp_path):
    (tmp_path / "a.bin").touch()
    assert read_bytes(tmp_path / "a.bin", LIMIT) == b""


def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_refused(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(10))
    assert len(read_bytes(path, 10)) == 10
    with pytest.raises(PictureError, match=r"a\.bin: expected at most 9 bytes, got 10"):
        read_bytes(path, 9)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PictureError, match=r"none\.jpg: cannot be read: No such file"):
        read_bytes(tmp_path / "none.jpg", LIMIT)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(PictureError, match="expected a file, got a folder"):
        read_bytes(tmp_path, LIMIT)


@posix_only
def test_a_fifo_without_a_writer_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(PictureError, match="expected a regular file"):
        read_bytes(tmp_path / "a.jpg", LIMIT)


@posix_only
def test_a_fifo_put_in_a_files_place_after_the_check_does_not_block(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    (tmp_path / "real").write_bytes(b"x")
    os.mkfifo(path)
    status = os.stat(tmp_path / "real")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "stat", lambda _path: status)
        with pytest.raises(PictureError, match="expected a regular file"):
            read_bytes(path, LIMIT)


@posix_only
def test_a_device_is_refused():
    with pytest.raises(PictureError, match="expected a regular file"):
        read_bytes(Path("/dev/zero"), LIMIT)


@posix_only
def test_a_symbolic_link_is_followed_and_a_loop_is_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x")
    (tmp_path / "link").symlink_to("a.bin")
    (tmp_path / "loop").symlink_to("loop")
    assert read_bytes(tmp_path / "link", LIMIT) == b"x"
    with pytest.raises(PictureError, match="loop: cannot be read"):
        read_bytes(tmp_path / "loop", LIMIT)


@posix_only
def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(PictureError, match=r"\\ud800\.jpg: cannot be read"):
        read_bytes(Path("\ud800.jpg"), LIMIT)


def test_a_name_with_a_nul_byte_is_refused():
    with pytest.raises(PictureError, match=r"a\\x00b: cannot be read"):
        read_bytes(Path("a\0b"), LIMIT)


@posix_only
def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(10))
    before = os.stat(path)
    path.write_bytes(bytes(20))
    monkeypatch.setattr(files.os, "fstat", lambda _fd: before)
    with pytest.raises(PictureError, match="changed while it was read"):
        read_bytes(path, LIMIT)


@posix_only
def test_reading_leaves_no_file_open(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(10))
    before = len(os.listdir("/dev/fd"))
    for limit in (10, 9):
        try:
            read_bytes(tmp_path / "a.bin", limit)
        except PictureError:
            continue
    assert len(os.listdir("/dev/fd")) == before


def test_a_member_of_a_zip_file_is_read(archive):
    assert read_bytes(archive / "inner" / "a.webp", LIMIT) == b"aaa" * 1000
    assert read_bytes(archive / "überblick 🐙.jpg", LIMIT) == b"octopus"


def test_a_path_is_split_at_the_zip_file(archive):
    assert split_member(archive / "inner" / "a.webp") == (archive, "inner/a.webp")
    assert split_member(archive) is None
    assert split_member(archive.parent / "none" / "a.webp") is None


def test_a_suffix_in_capitals_is_a_zip_file_too(archive):
    loud = archive.rename(archive.with_suffix(".ZIP"))
    assert read_bytes(loud / "inner" / "a.webp", LIMIT) == b"aaa" * 1000


def test_a_folder_called_zip_is_a_folder(tmp_path):
    folder = tmp_path / "photos.zip"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    assert read_bytes(folder / "a.jpg", LIMIT) == b"x"
    with pytest.raises(PictureError, match="No such file"):
        read_bytes(folder / "b.jpg", LIMIT)


@pytest.mark.parametrize("name", ["none.jpg", "inner", "empty", "inner/../inner/a.webp", "../photos.zip"])
def test_what_is_not_a_member_is_refused(archive, name):
    with pytest.raises(PictureError, match="there is no such file in the zip file"):
        read_bytes(archive / name, LIMIT)


def test_a_member_above_the_limit_is_refused_by_its_declared_size(archive):
    with pytest.raises(PictureError, match=r"large\.bin: expected at most 1,048,576 bytes, got 1,048,577"):
        read_bytes(archive / "large.bin", LIMIT)


def patch_sizes(path, name, size):
    """Declare another unpacked size for a member, in its own header and in the table of contents."""
    data = bytearray(path.read_bytes())
    raw = name.encode()
    local = data.index(raw) - 30
    central = data.rindex(raw) - 46
    data[local + 22 : local + 26] = struct.pack("<I", size)
    data[central + 24 : central + 28] = struct.pack("<I", size)
    path.write_bytes(data)


@pytest.mark.parametrize("declared", [10, 5000])
def test_a_member_whose_declared_size_is_a_lie_is_refused(archive, declared):
    patch_sizes(archive, "inner/a.webp", declared)
    with pytest.raises(PictureError, match=r"a\.webp: the zip file"):
        read_bytes(archive / "inner" / "a.webp", LIMIT)


def test_an_encrypted_member_is_refused_with_advice(archive):
    data = bytearray(archive.read_bytes())
    central = data.rindex(b"inner/a.webp") - 46
    data[central + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(PictureError, match="encrypted: unpack it with its password first"):
        read_bytes(archive / "inner" / "a.webp", LIMIT)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_unpacks_without_bounds_is_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as packed:
        packed.writestr("a.jpg", bytes(1000))
    with pytest.raises(PictureError, match="rare compression"):
        read_bytes(tmp_path / "a.zip" / "a.jpg", LIMIT)


@pytest.mark.parametrize("data", [b"", b"no zip file at all", b"PK\x05\x06" + bytes(10)])
def test_what_is_no_zip_file_is_refused(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(PictureError, match=r"a\.jpg: the zip file cannot be read"):
        read_bytes(tmp_path / "a.zip" / "a.jpg", LIMIT)


def test_a_zip_file_with_any_byte_flipped_gives_the_bytes_or_a_picture_error(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.jpg", b"picture " * 20)
    whole = path.read_bytes()
    outcomes = set()
    for place in range(len(whole)):
        flipped = tmp_path / f"{place}.zip"
        flipped.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            outcomes.add(read_bytes(flipped / "a.jpg", LIMIT))
        except PictureError:
            outcomes.add("refused")
    assert outcomes == {b"picture " * 20, "refused"}


def test_a_zip_file_that_is_replaced_is_read_anew(archive):
    assert read_bytes(archive / "inner" / "a.webp", LIMIT) == b"aaa" * 1000
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("inner/a.webp", b"new")
    assert read_bytes(archive / "inner" / "a.webp", LIMIT) == b"new"


def test_the_table_of_contents_is_read_once(archive, monkeypatch):
    opened = []
    real = zipfile.ZipFile

    def counting(path):
        opened.append(path)
        return real(path)

    monkeypatch.setattr(files.zipfile, "ZipFile", counting)
    for _ in range(50):
        read_bytes(archive / "inner" / "a.webp", LIMIT)
    assert opened == [archive]


@posix_only
def test_only_a_few_zip_files_are_kept_open(archive, tmp_path):
    before = len(os.listdir("/dev/fd"))
    for n in range(40):
        copy = Path(shutil.copy(archive, tmp_path / f"{n}.zip"))
        assert read_bytes(copy / "inner" / "a.webp", LIMIT) == b"aaa" * 1000
    assert len(os.listdir("/dev/fd")) - before <= 8


def test_many_threads_read_many_zip_files_at_once(tmp_path):
    # More files than are kept open, so that files are dropped while others read from them.
    paths = []
    for n in range(12):
        with zipfile.ZipFile(tmp_path / f"{n}.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for m in range(5):
                packed.writestr(f"{m}.jpg", f"{n} {m} ".encode() * 2000)
                paths.append((tmp_path / f"{n}.zip" / f"{m}.jpg", f"{n} {m} ".encode() * 2000))
    start = threading.Barrier(8)

    def read_all(shift):
        start.wait()
        turn = paths[shift * 7 :] + paths[: shift * 7]
        return all(read_bytes(path, LIMIT) == data for path, data in turn * 3)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read_all, range(8))) == [True] * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_move_its_parents_place_in_a_zip_file(archive):
    read_bytes(archive / "inner" / "a.webp", LIMIT)
    with files._open_zips.lock:
        child = os.fork()
        if child == 0:
            # Held by the parent when it forked: a copied lock would never open again.
            fresh = files._open_zips.lock.acquire(timeout=5) and not files._open_zips.zips
            os._exit(0 if fresh else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_equal_bytes_have_equal_hashes_of_sixteen_bytes():
    assert content_hash(b"a") == content_hash(b"a") != content_hash(b"b")
    assert len(content_hash(b"")) == 16


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / ("n" * 251 + ".bin")
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, step, fail)
        with pytest.raises(OSError, match="No space left"):
            atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@posix_only
def test_the_file_is_synced_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    steps = []
    sync, replace = os.fsync, os.replace

    def record_sync(descriptor):
        steps.append("folder" if os.path.isdir(f"/dev/fd/{descriptor}") else "file")
        sync(descriptor)

    def record_replace(source, target):
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", record_sync)
    monkeypatch.setattr(files.os, "replace", record_replace)
    atomic_write(tmp_path / "a.bin", b"x")
    assert steps == ["file", "rename", "folder"]


@posix_only
def test_syncing_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        fsync_folder(tmp_path / "none")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain name.jpg", "plain name.jpg"),
        ("naïve 日本\u3000語 👩\u200d🚀.jpg".encode(), "naïve 日本\u3000語 👩\u200d🚀.jpg"),
        (b"\xff\xfe.jpg", "\\xff\\xfe.jpg"),
        (b"a\nb\tc\x1b[31m.jpg", "a\\nb\\tc\\x1b[31m.jpg"),
        ("gpj.\u202eexe".encode(), "gpj.\\u202eexe"),
        (b"", ""),
    ],
)
def test_a_name_is_shown_as_one_printable_line(raw, shown):
    assert display_name(raw) == shown
    assert shown.encode("utf-8").decode() == shown


@posix_only
def test_a_file_whose_name_is_not_text_is_read_and_named(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    assert read_bytes(Path(os.fsdecode(raw)), LIMIT) == b"x"
    with pytest.raises(PictureError, match=r"caf\\xe9\.jpg: expected at most 0 bytes"):
        read_bytes(Path(os.fsdecode(raw)), 0)
