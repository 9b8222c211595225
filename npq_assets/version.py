"""Which code made a stored result: part of the hash under which it is kept, so that new code never reads old results."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

_PARTS = (
    "forecasting",
    "optimization",
    "evaluation",
    "customers",
    "recommendation",
    "retail",
    "manufacturing",
    "equipment",
    "logistics",
)


@lru_cache(maxsize=1)
def code_version() -> str:
    """Hash of the engines' and systems' source."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for part in _PARTS:
        for file in sorted((package / part).rglob("*.py")):
            digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
