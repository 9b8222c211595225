"""What `npq simulate` does: lets the sample company live on under the very runs that `npq run` makes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date

from npq_assets.company.simulate import SimulationResult
from npq_assets.company.simulate import simulate as live
from npq_assets.deciding import Decider
from npq_assets.settings import Home


def simulate_company(
    home: Home, *, weeks: int, seed: int, domain: str | None, scale: float, say: Callable[[str], None]
) -> SimulationResult:
    """Simulates in a home of its own below `home`, made anew, so that nobody's landing folder is touched."""
    world = Home.at(home.root / "simulations" / f"seed={seed}-scale={scale:g}-weeks={weeks}")
    shutil.rmtree(world.root, ignore_errors=True)
    world.root.mkdir(parents=True)
    decider = Decider(world, domain or "everything")

    def decide(_: Home, as_of: date) -> None:
        decider.decide(as_of)

    return live(world, weeks=weeks, seed=seed, domain=domain, decide=decide, log=say, scale=scale)
