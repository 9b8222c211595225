"""What a system's part of the company must offer so that `npq simulate` can live it beside the naive rule's.

A world reads nothing but what the product wrote for anybody (decision files) and writes nothing but landing files; how
days are stepped and costs are summed does not belong here (see `simulate`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from npq_assets.company.landing import Beginning, LandingFolder
from npq_assets.settings import Home

# What maintenance, quality and control are judged by together.
EQUIPMENT_KINDS = ("failures", "scrap", "energy")


@dataclass(frozen=True)
class CostRow:
    """What a day cost at one place in both worlds.

    Attributes:
        day: The day.
        cluster: The place whose costs share their luck: a store, a line, a depot.
        kind: One of `simulate.KINDS`.
        npq: Cost under npq's decisions (money).
        naive: Cost under the naive policy (money).
    """

    day: date
    cluster: str
    kind: str
    npq: float
    naive: float


@dataclass(frozen=True)
class Service:
    """Units wanted and units served in time, in both worlds, over all days lived.

    Attributes:
        demand: Units wanted: (npq, naive).
        served: Units served: (npq, naive).
    """

    demand: tuple[float, float]
    served: tuple[float, float]


class World(Protocol):
    """A system of the sample company, lived twice: under npq's decisions and under the naive policy, with the same luck.

    Attributes:
        domain: The system.
        kinds: Cost kinds that it books, of `simulate.KINDS`.
    """

    domain: str
    kinds: tuple[str, ...]

    def open(self, folder: LandingFolder, first_day: date, last_day: date) -> None:
        """Lands what is known before the first decision and is not part of the written history."""
        ...

    def step(self, home: Home, folder: LandingFolder, day: date) -> list[CostRow]:
        """Lives `day` in both worlds under the decisions as of it; lands what is known when the next day opens.

        Raises:
            RunError: There are no usable decisions as of `day`.
        """
        ...

    def service(self) -> Service | None:
        """What was wanted and served so far; None where the system has no such measure."""
        ...


WorldMaker = Callable[[Beginning], World]


def world_makers() -> dict[str, tuple[WorldMaker, ...]]:
    """What makes the worlds of each system that can be simulated, in the order in which they live a day."""
    from npq_assets.company.logistics_world import LogisticsWorld
    from npq_assets.company.offer_world import OfferWorld
    from npq_assets.company.plant_world import PlantWorld
    from npq_assets.company.retail_world import RetailWorld

    return {
        "retail": (RetailWorld, OfferWorld),
        "logistics": (LogisticsWorld,),
        "manufacturing": (PlantWorld,),
    }
