"""Which files have landed, and whether somebody is still writing one. What is in them does not belong here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from npq_assets.contracts import LANDING

SUFFIXES = (".csv", ".csv.gz", ".parquet")
_TEMPORARY = (".tmp", ".part", ".partial", ".crdownload", ".download", ".swp", ".filepart")


@dataclass(frozen=True)
class LandedFile:
    """A file in a landing folder.

    Attributes:
        domain: Folder under landing.
        table: Folder under the domain.
        path: The file.
        name: The path relative to landing, with forward slashes.
        size: Bytes.
        mtime_ns: Last modification (nanoseconds).
    """

    domain: str
    table: str
    path: Path
    name: str
    size: int
    mtime_ns: int


def landing_files(landing: Path, warn: Callable[[str], None] | None = None) -> list[LandedFile]:
    """All files of known tables, oldest first; what is passed over is told to `warn`, except temporary names."""
    warn = warn or (lambda _: None)
    found: list[LandedFile] = []
    if not landing.is_dir():
        return found
    for folder, folders, names in os.walk(landing, followlinks=True):
        folders.sort()
        place = Path(folder).relative_to(landing)
        for name in sorted(names):
            if name.startswith((".", "~$")) or name.lower().endswith(_TEMPORARY):
                continue
            path, relative = Path(folder) / name, (place / name).as_posix()
            if len(place.parts) < 2 or f"{place.parts[0]}.{place.parts[1]}" not in LANDING:
                warn(f"{relative}: not in a folder <domain>/<table> of the contract; left where it is")
                continue
            if not name.lower().endswith(SUFFIXES):
                warn(f"{relative}: not one of {', '.join(SUFFIXES)}; left where it is")
                continue
            try:
                status = path.stat()
            except OSError:
                warn(f"{relative}: cannot be looked at; left where it is")
                continue
            found.append(LandedFile(place.parts[0], place.parts[1], path, relative, status.st_size, status.st_mtime_ns))
    return sorted(found, key=lambda file: (file.mtime_ns, file.name))


def being_written(path: Path) -> bool:
    """Whether some process holds the file open for writing (Linux; elsewhere only a changing size tells)."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    try:
        with path.open("rb") as handle:
            # A read lease is refused while anybody has the file open for writing.
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
