"""Folders that break every rule: no crash, no silent loss (`benchmarks.dirty_landing` runs ten thousand)."""

from pathlib import Path

import pytest

from benchmarks.dirty_landing import check_case


@pytest.mark.parametrize("start", range(0, 60, 10))
def test_dirty_folders_balance(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + 10):
        check_case(seed, tmp_path / "home")
