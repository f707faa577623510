"""Checks of a `.keras` file as a zip archive: digest, members, sizes and checksums.

Nothing is extracted. Every member is read to its end, which verifies its size and its checksum.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import stat
import zipfile
import zlib
from io import BufferedReader

from keras_seqzoo.errors import ArgumentError, ArtifactError
from keras_seqzoo.utils import compat
from keras_seqzoo.utils.argument_validation import argument_message

METADATA, CONFIG, WEIGHTS, ASSETS = "metadata.json", "config.json", "model.weights.h5", "assets/"
# Keras writes three members and one per vocabulary, all uncompressed.
MAX_MEMBERS, MAX_DIRECTORY, MAX_METADATA = 1_000, 2**18, 2**16
# A member that expands to more than 1 MiB and by more than this ratio is a decompression bomb.
MAX_RATIO, MIN_EXPANDED = 100, 2**20
_CHUNK = 2**20


def check_digest(file: BufferedReader, sha256: str | None) -> None:
    """Raise `ArtifactError` unless the SHA-256 digest of `file` is `sha256`.

    Args:
        file: a file open for reading.
        sha256: str of 64 hexadecimal digits, or None, which skips the check.

    Raises:
        ArgumentError: if `sha256` is not a digest.
        ArtifactError: if the digest differs.
    """
    if sha256 is None:
        return
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ArgumentError(argument_message("sha256", "64 hexadecimal digits", sha256))
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256.lower():
        raise ArtifactError(
            f"`path` must be a file with SHA-256 {sha256.lower()}. Received: a file with SHA-256 "
            f"{digest}. Get the file again, or ask its author which digest is right."
        )


def read_archive(file: BufferedReader, *, max_bytes: int, max_config: int) -> tuple[bytes, bytes]:
    """Read the configuration and the weights of a model file.

    Args:
        file: a file open for reading.
        max_bytes: int, upper bound of the uncompressed size of all members.
        max_config: int, upper bound of the size of the configuration, and of the vocabularies.

    Returns:
        Bytes of the configuration and bytes of the weights.

    Raises:
        ArtifactError: if the file is not an archive as Keras writes it, is damaged or too large.
    """
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = _checked_members(archive, max_bytes, max_config)
            contents = {name: _read(archive, info) for name, info in members.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise archive_error(f"a damaged file ({error})", "Get the file again.") from error
    return contents[CONFIG], contents[WEIGHTS]


def archive_error(received: str, hint: str = "Do not use this file.") -> ArtifactError:
    """Return the error for a file that is not a `.keras` file as Keras writes it."""
    return ArtifactError(
        f"`path` must be a complete .keras file as Keras writes it. Received: {received}. {hint}"
    )


def _check_directory(file: BufferedReader) -> None:
    """Bound the size of the directory, since `ZipFile` reads all of it into memory."""
    size = compat.zip_directory_size(file)
    if size is None:
        raise archive_error(
            "a file that is truncated or not a zip archive",
            "Get the file again, or save the model with model.save('name.keras').",
        )
    if size > MAX_DIRECTORY:
        raise archive_error(f"an archive with more than {MAX_MEMBERS:,} members")


def _checked_members(
    archive: zipfile.ZipFile, max_bytes: int, max_config: int
) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        _check_member(info)
        if info.filename in members:
            raise archive_error(f"an archive with two members {info.filename!r}")
        members[info.filename] = info
    missing = [name for name in (METADATA, CONFIG, WEIGHTS) if name not in members]
    if missing:
        raise archive_error(
            f"an archive without {', '.join(missing)}",
            "Save the model with model.save('name.keras').",
        )
    if len(members) > MAX_MEMBERS:
        raise archive_error(f"an archive with {len(members):,} members")
    sizes = {name: info.file_size for name, info in members.items()}
    assets_size = sum(size for name, size in sizes.items() if name.startswith(ASSETS))
    for part, size, argument, limit in (
        ("members", sum(sizes.values()), "max_bytes", max_bytes),
        ("a configuration", sizes[CONFIG], "max_config", max_config),
        ("vocabularies", assets_size, "max_config", max_config),
        ("metadata", sizes[METADATA], None, MAX_METADATA),
    ):
        if size > limit:
            raise archive_error(
                f"an archive with {part} of {size:,} bytes; at most {limit:,} are allowed",
                f"If you trust the file, allow more with {argument}=."
                if argument
                else "Do not use this file.",
            )
    return members


def _check_member(info: zipfile.ZipInfo) -> None:
    name, mode = info.filename, info.external_attr >> 16
    if name not in (METADATA, CONFIG, WEIGHTS) and not _is_asset(info):
        problem = "a member that Keras does not write or whose path leads elsewhere"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        problem = "a link or a device"
    elif info.flag_bits & 1:
        problem = "an encrypted member"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = "a member compressed by a method that Keras does not use"
    elif info.file_size > max(MIN_EXPANDED, MAX_RATIO * info.compress_size):
        problem = f"a member that expands from {info.compress_size:,} to {info.file_size:,} bytes"
    else:
        return
    raise archive_error(f"an archive with {problem}: {name[:80]!r}")


def _is_asset(info: zipfile.ZipInfo) -> bool:
    """Whether a member is inside `assets/`, by a path that every system reads alike."""
    name = info.filename
    return (
        name.startswith(ASSETS)
        and name == info.orig_filename == posixpath.normpath(name)
        and not re.search(r"[\\:\x00-\x1f]|/\.\.?(/|$)", name)
    )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read a member to its end, where `zipfile` compares its checksum; assets return no bytes."""
    content, size = bytearray(), 0
    with archive.open(info) as member:
        while chunk := member.read(_CHUNK):
            size += len(chunk)
            if not info.filename.startswith(ASSETS):
                content += chunk
    if size != info.file_size:
        raise archive_error(
            f"an archive whose member {info.filename!r} is truncated", "Get the file again."
        )
    return bytes(content)
