"""Bytes of files and of members of zip files, read and written safely."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import struct
import threading
import unicodedata
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import TypeAlias

from mmsearch.errors import PictureError

_ZIPS_KEPT = 8
_ZIP_TROUBLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,
)
# Non-blocking, so that a FIFO put in a file's place never stops us; Windows has neither FIFOs nor these flags.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_ZipKey: TypeAlias = tuple[str, int, int]


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file, or a member of a zip file named as ``photos.zip/inner/name.webp``.

    Safe to call from many threads; never blocks on what is not a regular file. Symbolic links are followed.

    Parameters
    ----------
    path
        Where to read. What exists under that name wins over a member of a zip file.
    limit
        The most bytes to read.

    Raises
    ------
    PictureError
        If there is no such file or member, it is not a regular file, it is larger than ``limit``, it changes while
        it is read, or the zip file is damaged, encrypted or compressed with a rare method. The message starts with
        the path.
    """
    inside = split_member(path)
    if inside is None:
        return _read_file(path, limit)
    return _read_member(path, *inside, limit)


def split_member(path: Path) -> tuple[Path, str] | None:
    """Take ``photos.zip/inner/name.webp`` apart: (path of the zip file, name of the member).

    None if something exists under that very name, or no ancestor is a regular file whose name ends in ``.zip``.
    """
    if os.path.lexists(path):
        return None
    for folder in path.parents:
        if os.path.lexists(folder):
            if folder.suffix.lower() == ".zip" and folder.is_file():
                return folder, path.relative_to(folder).as_posix()
            return None
    return None


def content_hash(data: bytes) -> bytes:
    """Hash some bytes to 16 (BLAKE2b): equal for equal contents, and for no others in practice."""
    return hashlib.blake2b(data, digest_size=16).digest()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that, whatever happens, it holds the old bytes or all the new ones, even after a power cut.

    Raises
    ------
    OSError
        If it cannot be written; the old file is untouched and nothing is left behind.
    """
    # A short name of its own: the target's name may be as long as names can be.
    temporary = path.parent / f".mmsearch-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder last through a power cut.

    Raises
    ------
    OSError
        If the folder cannot be opened or synced.
    """
    if os.name == "nt":
        return  # Windows cannot open folders, and writes their entries through by itself
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def display_name(raw: bytes) -> str:
    r"""Write a file name of any bytes as one line of valid, printable text.

    Bytes that are not UTF-8 and characters that are not for reading (line breaks, terminal escapes, direction
    marks) come out as backslash escapes; all others, emoji included, stay as they are.

    >>> display_name(b"caf\xe9\n.jpg")
    'caf\\xe9\\n.jpg'
    """
    return "".join(map(_printable, raw.decode("utf-8", "backslashreplace")))


def display_path(path: Path) -> str:
    """Write a path as one line of valid, printable text, like `display_name`."""
    try:
        return display_name(os.fsencode(path))
    except UnicodeEncodeError:
        # Half a surrogate pair: text that no file system can hold, but that can be asked for.
        return display_name(str(path).encode("utf-8", "backslashreplace"))


def _printable(char: str) -> str:
    # Joiners hold emoji and several scripts together; spaces of all widths are harmless.
    if char.isprintable() or char in "\u200c\u200d" or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode("ascii")


def _error(path: Path, reason: str) -> PictureError:
    return PictureError(f"{display_path(path)}: {reason}")


def _too_large(path: Path, size: int, limit: int) -> PictureError:
    return _error(path, f"expected at most {limit:,} bytes, got {size:,}")


def _read_file(path: Path, limit: int) -> bytes:
    try:
        # Asked before opening too, because opening a device can do something.
        _check_regular(path, os.stat(path))
        with open(os.open(path, _READ_FLAGS), "rb") as file:
            now = os.fstat(file.fileno())
            _check_regular(path, now)
            if now.st_size > limit:
                raise _too_large(path, now.st_size, limit)
            data = file.read(now.st_size + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, PictureError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _error(path, f"cannot be read: {reason}") from error
    if len(data) != now.st_size:
        raise _error(path, f"changed while it was read (expected {now.st_size:,} bytes): try again")
    return data


def _check_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _error(path, "expected a file, got a folder")
    if not stat.S_ISREG(status.st_mode):
        raise _error(path, "expected a regular file, got a pipe, socket or device")


class _OpenZips:
    """The zip files read last, kept open so that their table of contents is read once. Safe for threads."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop all: a forked child shares the parent's file positions, and perhaps a held lock."""
        self.lock = threading.Lock()
        self.zips: OrderedDict[_ZipKey, zipfile.ZipFile] = OrderedDict()

    def get(self, path: Path) -> zipfile.ZipFile:
        status = os.stat(path)
        key = (os.fspath(path.absolute()), status.st_size, status.st_mtime_ns)
        with self.lock:
            if key not in self.zips:
                for old in [other for other in self.zips if other[0] == key[0]]:
                    del self.zips[old]
                self.zips[key] = zipfile.ZipFile(path)
            self.zips.move_to_end(key)
            # Dropped and not closed: another thread may be about to read from it. The last reference closes it.
            while len(self.zips) > _ZIPS_KEPT:
                self.zips.popitem(last=False)
            return self.zips[key]

    def read(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
        # zipfile locks its reads, but not its count of open members, which decides when the file is closed.
        with self.lock:
            file = archive.open(member)
        try:
            return file.read(member.file_size + 1)
        finally:
            with self.lock:
                file.close()


_open_zips = _OpenZips()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_zips.forget)


def _read_member(path: Path, zip_path: Path, name: str, limit: int) -> bytes:
    try:
        archive = _open_zips.get(zip_path)
        member = archive.NameToInfo.get(name)
        if member is None:
            raise _error(path, "there is no such file in the zip file")
        _check_member(path, member, limit)
        data = _open_zips.read(archive, member)
    except _ZIP_TROUBLE as error:
        if isinstance(error, PictureError):
            raise
        raise _error(
            path, f"the zip file cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    if len(data) != member.file_size:
        raise _error(path, f"the zip file is damaged: expected {member.file_size:,} bytes, got {len(data):,}")
    return data


def _check_member(path: Path, member: zipfile.ZipInfo, limit: int) -> None:
    if member.flag_bits & 0x1:
        raise _error(path, "the zip file is encrypted: unpack it with its password first")
    # The other methods unpack a whole block at once, however large it turns out to be.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _error(path, "expected a stored or deflated member, got a rare compression: pack the zip file again")
    if member.file_size > limit:
        raise _too_large(path, member.file_size, limit)


def size_of(file: Path) -> int:
    """Bytes of a file; 0 if it is not there, since another process may take it away at any time."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
