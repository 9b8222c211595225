"""How npq writes and fingerprints tables: whole or not at all, and the same bytes for the same rows.

Readers and writers share no lock: a file appears under its final name by `os.replace` only when it is complete.
What a table *means* does not belong here.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, which takes the name `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(content: bytes, path: Path) -> None:
    """Writes `content` to `path` in one step, leaving an identical file untouched."""
    if path.exists() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(content: str, path: Path) -> None:
    """Writes `content` as UTF-8 to `path` in one step."""
    write_bytes(content.encode("utf-8"), path)


def write_json(content: Any, path: Path) -> None:
    """Writes `content` as sorted, indented JSON in one step."""
    write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, default=str) + "\n", path)


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Writes `frame` to `path` in one step, leaving an identical file untouched; the bytes depend on the rows alone."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=1, statistics=True)
    write_bytes(buffer.getvalue(), path)


def write_csv_for_people(frame: pl.DataFrame, path: Path) -> None:
    """Writes `frame` as CSV that a spreadsheet opens safely: UTF-8 with BOM, and no cell that runs as a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(frame.columns)
    for row in frame.iter_rows():
        writer.writerow([_spreadsheet_safe(value) for value in row])
    write_bytes(b"\xef\xbb\xbf" + buffer.getvalue().encode("utf-8", "replace"), path)


def _spreadsheet_safe(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}:
        return "'" + value
    return value


def fingerprint(*parts: pl.DataFrame | str | int | float | dict[str, Any] | None) -> str:
    """Hash of frames and parameters, 16 hex digits: equal content gives an equal fingerprint in any run.

    Frames count with their column names, types and rows in the order given; callers sort.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, pl.DataFrame):
            digest.update(json.dumps({name: str(kind) for name, kind in part.schema.items()}).encode())
            digest.update(part.height.to_bytes(8, "little"))
            if part.height and part.width:
                # Two seeds make 128 bits of every row; polars' hash is stable for a locked polars version.
                for seed in (1, 2):
                    digest.update(part.hash_rows(seed=seed).to_numpy().tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\x1e")
    return digest.hexdigest()[:16]
