"""What a `.keras` file holds, looked at before Keras does: its members, their sizes, its digest.

Nothing is extracted. Each member is read in pieces up to the size that it declares, so that one
which lies about its size, or whose checksum is wrong, is found here.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import stat
import zipfile
import zlib
from typing import BinaryIO

from keras_seqzoo.errors import ArgumentError, ArtifactError
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import argument_message

METADATA, CONFIG, WEIGHTS, ASSETS = "metadata.json", "config.json", "model.weights.h5", "assets/"
# Keras writes three members, one more per vocabulary, and packs none of them.
MAX_MEMBERS, MAX_DIRECTORY, MAX_METADATA = 1_000, 2**18, 2**16
MAX_RATIO, PACKED_AT_LEAST = 100, 2**20  # a member that grows beyond both is a bomb
_PIECE = 2**20


def check_digest(file: BinaryIO, sha256: str | None) -> None:
    """Raises `ArtifactError` unless the bytes of `file` have that digest.

    Args:
        file: a file open for reading.
        sha256: str of 64 hexadecimal digits, or None for any bytes.
    """
    if sha256 is None:
        return
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ArgumentError(argument_message("sha256", "64 hexadecimal digits", sha256))
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise ArtifactError(
            f"`path` must be the file whose SHA-256 is {sha256.lower()}. Received: one whose "
            f"SHA-256 is {found}. Get the file again, or ask its author which one is right."
        )


def read_archive(
    file: BinaryIO, *, max_bytes: int, max_config: int
) -> tuple[bytes, bytes, list[str]]:
    """The configuration and the weights of a model file, and the names of all its members.

    Args:
        file: a file open for reading.
        max_bytes: int, the most that all members may hold when unpacked.
        max_config: int, the most that its configuration may hold, and its vocabularies.

    Raises:
        ArtifactError: if it is no archive that Keras wrote, or too large.
    """
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = _checked_members(archive, max_bytes, max_config)
            whole = {name: _read(archive, info) for name, info in members.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise refused(f"a damaged one: {error}", "Get the file again.") from error
    return whole[CONFIG], whole[WEIGHTS], list(members)


def refused(received: str, hint: str) -> ArtifactError:
    """The error of a model file that is not what Keras writes."""
    return ArtifactError(
        f"`path` must be a whole .keras file as Keras writes them. Received: {received}. {hint}"
    )


def _check_directory(file: BinaryIO) -> None:
    """A directory of millions of members fills memory as soon as it is read."""
    size = compat.zip_directory_size(file)
    if size is None:
        raise refused(
            "one that is no zip archive, or is cut short",
            "Get the file again, or save the model with model.save('name.keras').",
        )
    if size > MAX_DIRECTORY:
        raise refused(f"an archive with more than {MAX_MEMBERS:,} members", "Do not use this file.")


def _checked_members(
    archive: zipfile.ZipFile, max_bytes: int, max_config: int
) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        _check_member(info)
        if info.filename in members:
            raise refused(f"one with two members {info.filename!r}", "Do not use this file.")
        members[info.filename] = info
    missing = [name for name in (METADATA, CONFIG, WEIGHTS) if name not in members]
    if missing:
        raise refused(
            f"one without {', '.join(missing)}", "Save the model with model.save('name.keras')."
        )
    if len(members) > MAX_MEMBERS:
        raise refused(f"one with {len(members):,} members", "Do not use this file.")
    sizes = {name: info.file_size for name, info in members.items()}
    in_assets = sum(size for name, size in sizes.items() if name.startswith(ASSETS))
    for what, size, argument, limit in (
        ("members", sum(sizes.values()), "max_bytes", max_bytes),
        ("configuration", sizes[CONFIG], "max_config", max_config),
        ("vocabularies", in_assets, "max_config", max_config),
        ("metadata", sizes[METADATA], None, MAX_METADATA),
    ):
        if size > limit:
            raise refused(
                f"one whose {what} hold {size:,} bytes, where {limit:,} are allowed",
                f"If you trust it, allow more with {argument}=." if argument else "Do not use it.",
            )
    return members


def _check_member(info: zipfile.ZipInfo) -> None:
    name, mode = info.filename, info.external_attr >> 16
    if name not in (METADATA, CONFIG, WEIGHTS) and not _is_asset(info):
        what = "a member that Keras does not write or whose name leads elsewhere"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        what = "a link or a device"
    elif info.flag_bits & 1:
        what = "an encrypted member"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        what = "a member packed in a way that Keras does not use"
    elif info.file_size > max(PACKED_AT_LEAST, MAX_RATIO * info.compress_size):
        what = f"a member that grows from {info.compress_size:,} to {info.file_size:,} bytes"
    else:
        return
    raise refused(f"one with {what}: {name[:80]!r}", "Do not use this file.")


def _is_asset(info: zipfile.ZipInfo) -> bool:
    """Whether it lies below `assets/`, by a name that means the same everywhere."""
    name = info.filename
    return (
        name.startswith(ASSETS)
        and name == info.orig_filename == posixpath.normpath(name)
        and not re.search(r"[\\:\x00-\x1f]|/\.\.?(/|$)", name)
    )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The whole member; its checksum is compared at its end. Assets are only looked through."""
    kept, size = bytearray(), 0
    with archive.open(info) as member:
        while piece := member.read(_PIECE):
            size += len(piece)
            if not info.filename.startswith(ASSETS):
                kept += piece
    if size != info.file_size:
        raise refused(f"one whose member {info.filename!r} is cut short", "Get the file again.")
    return bytes(kept)
