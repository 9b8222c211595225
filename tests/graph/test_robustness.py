"""A killed run and two runs at once: the same decisions, no lock error, no torn read (`benchmarks.robustness` does more)."""

import shutil
from pathlib import Path

import pytest

from benchmarks.robustness import decisions, killed, sample_home, share_secret, together, undisturbed


@pytest.mark.slow
def test_killed_or_crowded_the_decisions_are_the_same(tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    as_of = sample_home(calm, scale=0.05, days=100)
    wanted, seconds = undisturbed(calm, as_of)
    assert wanted
    assert killed(calm / "landing", tmp_path / "killed", as_of, 0.65 * seconds) == wanted
    shutil.copytree(calm / "landing", tmp_path / "both" / "landing", copy_function=shutil.copy2)
    share_secret(calm, tmp_path / "both")
    wrong, reads = together(tmp_path / "both", as_of)
    assert wrong == []
    assert reads > 0
    assert decisions(tmp_path / "both") == wanted
