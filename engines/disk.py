"""What a disk refuses, in a sentence."""

import errno
from pathlib import Path

from studio.domain.errors import StorageFailed

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def not_stored(error: OSError, title: str, folder: Path) -> StorageFailed:
    """What to tell when `title` could not be written into `folder`, for another reason than a full disk."""
    if error.errno in _READ_ONLY:
        return StorageFailed(
            f"The folder {folder.name!r} cannot be written.",
            "Give yourself write permission, or choose another data folder (FLASH_STUDIO_DATA_DIR).",
        )
    return StorageFailed(
        f"{title} could not be stored: {error.strerror or 'the system does not say why'}.",
        "Check the disk that holds the data folder, then try again.",
    )
