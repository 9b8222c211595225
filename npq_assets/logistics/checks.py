"""What must hold of a day's routes before anybody drives them, as plain functions of frames."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from npq_assets.logistics.inputs import LogisticsInputs
from npq_assets.verdicts import Verdict

_TOLERANCE = 1e-6
_MINUTE = timedelta(minutes=1)

CHECKS = ("complete", "capacity", "windows", "shifts", "bound", "beats_naive")
_WARNING = {"windows", "beats_naive"}


def nothing_to_judge(reason: str, *, passed: bool = True) -> list[Verdict]:
    """The verdicts of a day for which nothing could be decided, or (not `passed`) nothing was."""
    return [Verdict(name, passed, name not in _WARNING, f"nothing was decided: {reason}") for name in CHECKS]


def judge_plan(plan: dict[str, pl.DataFrame], facts: dict[str, Any], inputs: LogisticsInputs) -> list[Verdict]:
    """Judges the routes of a day against the inputs they were made from."""
    routes, dropped = plan["routes"], plan["dropped"]
    return [
        _complete(routes, dropped, inputs),
        _capacity(routes, inputs),
        _windows(routes, inputs),
        _shifts(plan["tours"], inputs, (facts.get("replanned") or {}).get("on_the_road", ())),
        _bound(routes, dropped),
        _naive(facts),
    ]


def _verdict(name: str, broken: pl.DataFrame, good: str) -> Verdict:
    if broken.is_empty():
        return Verdict(name, True, name not in _WARNING, good)
    first = ", ".join(f"{key}={value}" for key, value in broken.row(0, named=True).items())
    return Verdict(name, False, name not in _WARNING, f"{broken.height} rows, the first: {first}")


def _complete(routes: pl.DataFrame, dropped: pl.DataFrame, inputs: LogisticsInputs) -> Verdict:
    named = pl.concat([routes.select("delivery_id"), dropped.select("delivery_id")])
    twice = named.filter(pl.col("delivery_id").is_duplicated())
    wanted = inputs.deliveries.select("delivery_id")
    lost, strange = wanted.join(named, on="delivery_id", how="anti"), named.join(wanted, on="delivery_id", how="anti")
    return _verdict(
        "complete", pl.concat([twice, lost, strange]), "every delivery is on one route, or dropped at its price"
    )


def _capacity(routes: pl.DataFrame, inputs: LogisticsInputs) -> Verdict:
    loads = (
        routes.join(inputs.deliveries.select("delivery_id", "quantity", "depot_id"), on="delivery_id")
        .group_by("vehicle_id")
        .agg(pl.col("quantity").sum().alias("load"), pl.col("depot_id").unique().sort().alias("depots"))
        .join(
            inputs.vehicles.select("vehicle_id", "capacity", pl.col("depot_id").alias("home")),
            on="vehicle_id",
            how="left",
        )
        .sort("vehicle_id")
    )
    # A vehicle that is not in the fleet carries nothing.
    over = loads.filter(pl.col("capacity").is_null() | (pl.col("load") > pl.col("capacity") * (1 + _TOLERANCE) + 1e-3))
    foreign = loads.filter((pl.col("depots").list.len() > 1) | (pl.col("depots").list.first() != pl.col("home")))
    shown = pl.concat([over, foreign]).select("vehicle_id", "load", "capacity", "home")
    return _verdict("capacity", shown, "no vehicle carries more than it can, or another depot's goods")


def _windows(routes: pl.DataFrame, inputs: LogisticsInputs) -> Verdict:
    due = inputs.deliveries.select(
        "delivery_id",
        (pl.lit(inputs.opened) + pl.duration(seconds=(60 * pl.col("due")).round().cast(pl.Int64))).alias("due_at"),
    )
    late = routes.join(due, on="delivery_id").filter(pl.col("arrives_at") > pl.col("due_at") + _MINUTE)
    return _verdict(
        "windows",
        late.select("delivery_id", "arrives_at", "due_at"),
        "every stop is planned to be reached in its window",
    )


def _shifts(tours: pl.DataFrame, inputs: LogisticsInputs, on_the_road: Sequence[str]) -> Verdict:
    rows = tours.join(
        inputs.vehicles.select("vehicle_id", "shift_start", "shift_end", "max_km"), on="vehicle_id", how="left"
    )
    broken = rows.filter(
        pl.col("shift_start").is_null()
        | (pl.col("departs") < pl.col("shift_start") - 0.1)
        # Who had left when the day was planned anew comes home when he can: that must not keep the others' plan from being made.
        | (
            ~pl.col("vehicle_id").is_in(list(on_the_road))
            & ((pl.col("returns") > pl.col("shift_end") + 1.0) | (pl.col("km") > pl.col("max_km") + 0.1))
        )
    )
    return _verdict(
        "shifts",
        broken.select("vehicle_id", "departs", "returns", "km"),
        "vehicles leave and return in their shifts, and keep to their distance",
    )


def _bound(routes: pl.DataFrame, dropped: pl.DataFrame) -> Verdict:
    rows = pl.concat([f.select("delivery_id", "expected_cost", "lower_bound") for f in (routes, dropped)])
    slack = _TOLERANCE * (1 + pl.col("expected_cost").abs())
    broken = rows.filter(pl.col("expected_cost") < pl.col("lower_bound") - slack)
    return _verdict("bound", broken, "no delivery below its share of the bound")


def _naive(facts: dict[str, Any]) -> Verdict:
    ours, naive = float(facts["expected_cost"]), float(facts["naive_cost"])
    return Verdict(
        "beats_naive", ours <= naive * (1 + _TOLERANCE), False, f"expected {ours:,.2f}, savings {naive:,.2f}"
    )
