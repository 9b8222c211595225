"""A run killed, then two at once on what it left: the same decisions, no lock error (`benchmarks.robustness` does more)."""

from pathlib import Path

import pytest

from benchmarks.robustness import decisions, left_behind, sample_home, together
from npq_assets.deciding import Decider
from npq_assets.settings import Home


@pytest.mark.slow
def test_killed_then_crowded_the_decisions_are_the_same(tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    as_of = sample_home(calm, scale=0.05, days=100)
    Decider(Home.at(calm), "retail").decide(as_of)
    wanted = decisions(calm)
    assert wanted
    # Killed with a forecast written and nothing decided: what is left is neither a beginning nor an end.
    left_behind(calm / "landing", tmp_path / "both", as_of, "forecast__retail__demand_forecast")
    assert not decisions(tmp_path / "both").keys() >= wanted.keys()
    wrong, reads = together(tmp_path / "both", as_of)
    assert wrong == []
    assert reads > 0
    assert decisions(tmp_path / "both") == wanted
