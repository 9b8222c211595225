"""The closed loop: the company lives on under npq's decisions and, with the same luck, under its own naive policies.

Only landing files go in and only decision files come out; nothing here is special to the run that decides. How a run
decides does not belong here: `decide` is handed in; nor how a system lives a day (see `worlds`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any

import polars as pl

from npq_assets.company.config import PLANNED_DAYS
from npq_assets.company.landing import LandingFolder, write_company
from npq_assets.company.worlds import EQUIPMENT_KINDS, CostRow, World, world_makers
from npq_assets.errors import NpqError
from npq_assets.evaluation.statistics import Difference, paired_difference
from npq_assets.settings import Home

Decide = Callable[[Home, date], None]
Log = Callable[[str], None]

# Kinds of cost in the order of the published contract.
KINDS = ("stock", "lost_sales", "setups", "overtime", "lateness", "failures", "scrap", "energy", "kilometres", "offers")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class SimulationResult:
    """What both worlds cost.

    Attributes:
        first_day: First day lived under the decisions.
        last_day: Last day lived.
        weeks: Weeks lived.
        seed: Seed of the company.
        costs: One row a day, cluster and kind: `day`, `site_id` (the cluster: a store, a line, a depot), `kind`, `npq`,
            `naive` (money).
        service: One row a world: `world`, `demand`, `sold` (units wanted and served in time), `fill_rate`.
        kinds: Kinds of cost that were simulated.
        yardsticks: Costs by kind of other rules that lived beside both worlds, by the rule's name.
    """

    first_day: date
    last_day: date
    weeks: int
    seed: int
    costs: pl.DataFrame
    service: pl.DataFrame
    kinds: tuple[str, ...] = ()
    yardsticks: dict[str, dict[str, float]] = field(default_factory=dict)

    def against_yardsticks(self) -> list[dict[str, Any]]:
        """What failures, scrap and energy together cost under npq, the naive policies and each yardstick."""
        table = {row["kind"]: row for row in self.table().to_dicts()}
        found = []
        for name, costs in self.yardsticks.items():
            shared = [kind for kind in EQUIPMENT_KINDS if kind in costs and kind in table]
            rule = sum(costs[kind] for kind in shared)
            npq, naive = (sum(table[kind][world] for kind in shared) for world in ("npq", "naive"))
            share = 1.0 - npq / rule if rule > 0 else 0.0
            found.append(
                {"rule": name, "kinds": shared, "npq": npq, "naive": naive, "cost": rule, "saving_share": share}
            )
        return found

    def table(self) -> pl.DataFrame:
        """Cost of both worlds by kind, then in all: `kind`, `npq`, `naive`, `saving`, `saving_share`."""
        by_kind = self.costs.group_by("kind", maintain_order=True).agg(pl.col("npq", "naive").sum())
        total = by_kind.select(pl.lit("total").alias("kind"), pl.col("npq").sum(), pl.col("naive").sum())
        return pl.concat([by_kind, total]).with_columns(
            saving=pl.col("naive") - pl.col("npq"),
            saving_share=pl.when(pl.col("naive") > 0).then(1.0 - pl.col("npq") / pl.col("naive")),
        )

    def weekly(self) -> pl.DataFrame:
        """Cost of both worlds by week and kind: `week` (1, 2, …), `kind`, `npq`, `naive`."""
        week = ((pl.col("day") - pl.lit(self.first_day)).dt.total_days() // 7 + 1).alias("week")
        return self.costs.group_by(week, "kind", maintain_order=True).agg(pl.col("npq", "naive").sum())

    def difference(self) -> Difference:
        """Cost of npq minus cost of the naive world, paired and clustered by place; negative is a saving."""
        return paired_difference(self.costs["npq"], self.costs["naive"], self.costs["site_id"], CONFIDENCE)

    def as_json(self) -> dict[str, Any]:
        """The result as plain JSON: costs by kind in all and by week, the paired difference, the service."""
        kinds = {row["kind"]: {"npq": row["npq"], "naive": row["naive"]} for row in self.table().to_dicts()}
        total = kinds.pop("total")
        found = self.difference()
        weekly: dict[int, dict[str, Any]] = {}
        for row in self.weekly().to_dicts():
            week = weekly.setdefault(row["week"], {"week": row["week"], "costs": {}})
            week["costs"][row["kind"]] = {"npq": row["npq"], "naive": row["naive"]}
        return {
            "first_day": self.first_day.isoformat(),
            "last_day": self.last_day.isoformat(),
            "weeks": self.weeks,
            "seed": self.seed,
            "costs": kinds,
            "total": total,
            "saving": total["naive"] - total["npq"],
            "saving_share": 1.0 - found.ratio,
            "difference": asdict(found),
            "weekly": list(weekly.values()),
            "yardsticks": self.against_yardsticks(),
            "service": {
                row["world"]: {"demand": row["demand"], "sold": row["sold"], "fill_rate": row["fill_rate"]}
                for row in self.service.to_dicts()
            },
            "not_simulated": [kind for kind in KINDS if kind not in self.kinds],
        }

    def as_text(self) -> str:
        """The result as a table for people."""
        lines = [f"{'kind':<12}{'npq':>14}{'naive':>14}{'saving':>14}{'share':>9}"]
        for row in self.table().to_dicts():
            kind = row["kind"].replace("_", " ")
            share = "" if row["saving_share"] is None else f"{row['saving_share']:.1%}"
            lines.append(f"{kind:<12}{row['npq']:>14,.0f}{row['naive']:>14,.0f}{row['saving']:>14,.0f}{share:>9}")
        lines.append(f"{self.first_day} to {self.last_day}, npq minus naive, paired: {self.difference()}")
        for row in self.against_yardsticks():
            saved = 1.0 - row["npq"] / row["naive"] if row["naive"] > 0 else 0.0
            lines.append(
                f"{', '.join(row['kinds'])} together: npq {row['npq']:,.0f}, naive {row['naive']:,.0f} ({saved:.1%} less), "
                f"{row['rule']} {row['cost']:,.0f} ({row['saving_share']:.1%} less)"
            )
        fill = {row["world"]: row["fill_rate"] for row in self.service.to_dicts()}
        if fill:
            lines.append(f"demand served: npq {fill['npq']:.1%}, naive {fill['naive']:.1%}")
        absent = [kind for kind in KINDS if kind not in self.kinds]
        if absent:
            lines.append("not simulated: " + ", ".join(absent))
        return "\n".join(lines)


def simulate(
    home: Home,
    *,
    weeks: int = 4,
    seed: int = 0,
    domain: str | None = None,
    decide: Decide,
    log: Log = lambda line: None,
    scale: float = 1.0,
    days: int = 730,
) -> SimulationResult:
    """Steps the sample company day by day under `decide` and, from the same state and luck, under the naive policies.

    Each day D: what happened before D opened lands in `home`; `decide(home, D)` writes its decision files as of D; each
    system's world lives the day under them, and beside it under its naive policy.

    Args:
        home: An empty home; the company's landing files go into it.
        weeks: Weeks to live.
        seed: Seed of the company.
        domain: Whose decisions are simulated; None: all that can be.
        decide: The product's run as of a day.
        log: Gets a line a day.
        scale: Size of the company.
        days: Days of history before the first decision.

    Raises:
        NpqError: The home's landing folder is not empty, or the arguments are out of range.
        RunError: A day brought no usable decisions.
    """
    makers = world_makers()
    if weeks < 1:
        raise NpqError(f"weeks = {weeks} is out of range; give at least 1")
    if domain is not None and domain not in makers:
        raise NpqError(f"domain {domain!r} is not simulated yet; give --domain {' or '.join(sorted(makers))}, or none")
    if home.landing.exists() and any(home.landing.rglob("*.*")):
        raise NpqError(f"{home.landing} already holds files; give simulate an empty home with --home")
    summary, beginning = write_company(
        home.landing, scale=scale, days=days, seed=seed, extra_days=7 * weeks + PLANNED_DAYS + 7
    )
    log(
        f"sample company: {summary.n_series} series, {summary.total_rows} rows landed, "
        f"first decision as of {summary.as_of}"
    )
    worlds = [make(beginning) for name, of_domain in makers.items() if domain in (None, name) for make in of_domain]
    folder = LandingFolder(home.landing, keep=True)
    lived = [summary.as_of + timedelta(days=k) for k in range(7 * weeks)]
    for world in worlds:
        world.open(folder, lived[0], lived[-1])
    books = _Books()
    for day in lived:
        decide(home, day)
        books.enter(day, [row for world in worlds for row in world.step(home, folder, day)])
        log(books.line())
    return SimulationResult(
        first_day=lived[0],
        last_day=lived[-1],
        weeks=weeks,
        seed=seed,
        costs=books.costs(),
        service=_service(worlds),
        kinds=tuple(kind for kind in KINDS if any(kind in world.kinds for world in worlds)),
        yardsticks={name: costs for world in worlds for name, costs in _yardsticks(world).items()},
    )


def _yardsticks(world: World) -> dict[str, dict[str, float]]:
    """Costs of the rules that a system lives beside its two worlds; most live none."""
    found: dict[str, dict[str, float]] = getattr(world, "yardsticks", dict)()
    return found


def _service(worlds: Sequence[World]) -> pl.DataFrame:
    """Units wanted and served over all systems that measure it."""
    found = [service for world in worlds if (service := world.service()) is not None]
    rows = []
    for k, name in enumerate(("npq", "naive") if found else ()):
        demand, sold = sum(s.demand[k] for s in found), sum(s.served[k] for s in found)
        rows.append({"world": name, "demand": demand, "sold": sold, "fill_rate": sold / max(demand, 1.0)})
    schema = {"world": pl.String, "demand": pl.Float64, "sold": pl.Float64, "fill_rate": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


@dataclass
class _Books:
    """The costs of both worlds, entered day by day."""

    _rows: list[CostRow] = field(default_factory=list)
    _day: date | None = None
    _today: tuple[float, float] = (0.0, 0.0)
    _so_far: tuple[float, float] = (0.0, 0.0)

    def enter(self, day: date, rows: Sequence[CostRow]) -> None:
        self._rows += rows
        self._day = day
        self._today = (sum(row.npq for row in rows), sum(row.naive for row in rows))
        self._so_far = (self._so_far[0] + self._today[0], self._so_far[1] + self._today[1])

    def line(self) -> str:
        ours, theirs = self._so_far
        share = 1.0 - ours / theirs if theirs > 0 else 0.0
        return f"{self._day}  npq {self._today[0]:,.0f}  naive {self._today[1]:,.0f}  saved so far {share:.1%}"

    def costs(self) -> pl.DataFrame:
        return pl.DataFrame(
            [(row.day, row.cluster, row.kind, row.npq, row.naive) for row in self._rows],
            schema={"day": pl.Date, "site_id": pl.String, "kind": pl.String, "npq": pl.Float64, "naive": pl.Float64},
            orient="row",
        )
