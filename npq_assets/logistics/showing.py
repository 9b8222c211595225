"""Logistics decisions as people see them: a map without any web service, dispatch lists, rows of the report."""

from __future__ import annotations

import re
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from npq_assets.logistics.marts import opening
from npq_assets.logistics.output import plan_folder
from npq_assets.reporting.report import DECISION_COLUMNS
from npq_assets.settings import Home
from npq_assets.storage import write_csv_for_people, write_text

_COLOURS = (
    "#2a7f9e",
    "#c2521f",
    "#5b8c3a",
    "#8a4f9e",
    "#b08a1e",
    "#3a5fb0",
    "#a8325e",
    "#4f8f86",
    "#7a5c3e",
    "#666f7a",
)


def route_map(
    routes: pl.DataFrame, dropped: pl.DataFrame, places: pl.DataFrame, width: int = 900, height: int = 560
) -> str:
    """Routes on a map as one SVG: north is up, each route in a colour, stops numbered, dropped deliveries as crosses.

    Args:
        routes: route_id, stop, vehicle_id, delivery_id.
        dropped: delivery_id.
        places: name (of depot or delivery), latitude, longitude; depots come first.
    """
    if places.is_empty():
        return ""
    drops = {*routes["delivery_id"].to_list(), *dropped["delivery_id"].to_list()}
    # A depot and a delivery may have the same name: depots come first, then deliveries.
    where: dict[str, tuple[float, float]] = {}
    houses: dict[str, tuple[float, float]] = {}
    own = set(routes["depot_id"].to_list()) if "depot_id" in routes.columns else set()
    for name, *spot in places.select("name", "latitude", "longitude").iter_rows():
        if name not in where and (name in own or name not in drops):
            houses[name] = (spot[0], spot[1])
        where[name] = (spot[0], spot[1])
    lat, lon = places["latitude"].to_numpy(), places["longitude"].to_numpy()
    shrink = float(np.cos(np.radians(lat.mean())))
    span = max(float(np.ptp(lon)) * shrink / (width - 60), float(np.ptp(lat)) / (height - 60), 1e-9)

    def xy(name: str, known: dict[str, tuple[float, float]] = where) -> tuple[float, float]:
        a, b = known[name]
        return 30 + (b - float(lon.min())) * shrink / span, 30 + (float(lat.max()) - a) / span

    depots = list(houses)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Map of the routes" xmlns="http://www.w3.org/2000/svg" '
        'class="map" style="font:9px sans-serif">'
    ]
    home = _homes(routes, places, depots)
    for k, (name, group) in enumerate(routes.sort("route_id", "stop").group_by("route_id", maintain_order=True)):
        colour = _COLOURS[k % len(_COLOURS)]
        stops = group["delivery_id"].to_list()
        depot = home.get(str(name[0]))
        ends = [xy(depot, houses)] if depot else []
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*ends, *map(xy, stops), *ends])
        parts.append(f"<g><title>{escape(str(name[0]))}: {len(stops)} stops</title>")
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6" opacity=".8"/>')
        for number, stop in enumerate(stops, 1):
            x, y = xy(stop)
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colour}"><title>{escape(stop)}</title></circle>'
                f'<text x="{x:.1f}" y="{y + 3:.1f}" text-anchor="middle" fill="#fff">{number}</text>'
            )
        parts.append("</g>")
    for name in dropped["delivery_id"].to_list():
        if name in where:
            x, y = xy(name)
            parts.append(
                f'<path d="M{x - 5:.1f},{y - 5:.1f}l10,10m0,-10l-10,10" stroke="#c00" stroke-width="2">'
                f"<title>{escape(name)}: dropped</title></path>"
            )
    for name in depots:
        x, y = xy(name, houses)
        parts.append(
            f'<rect x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12" fill="#222"/>'
            f'<text x="{x + 9:.1f}" y="{y + 4:.1f}" fill="#555" style="font-size:11px">{escape(name)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _homes(routes: pl.DataFrame, places: pl.DataFrame, depots: list[str]) -> dict[str, str]:
    if "depot_id" in routes.columns:
        return dict(routes.select("route_id", "depot_id").unique("route_id").iter_rows())
    return dict.fromkeys(routes["route_id"].unique().to_list(), depots[0]) if len(depots) == 1 else {}


def write_dispatch(home: Home, day: date, routes: pl.DataFrame, deliveries: pl.DataFrame, alerts: pl.DataFrame) -> Path:
    """Writes a CSV per vehicle and one page that prints a sheet per driver; removes lists of vehicles that stay at home.

    Returns:
        The page.
    """
    folder = home.decision_folder("logistics", "dispatch") / f"as_of={day.isoformat()}"
    agreed = alerts.filter(pl.col("kind") == "late_delivery").select(
        pl.col("subject").alias("delivery_id"), pl.col("agreed_until")
    )
    rows = (
        routes.join(deliveries.select("delivery_id", "quantity", "due", "ready"), on="delivery_id", how="left")
        .join(agreed, on="delivery_id", how="left")
        .sort("vehicle_id", "stop")
    )
    # A tour over midnight goes on counting, as its windows do: 25:30 is half past one on the next day.
    since = lambda column: (pl.col(column) - opening(day)).dt.total_seconds() / 60.0  # noqa: E731
    sheets = []
    for (vehicle,), group in rows.group_by("vehicle_id", maintain_order=True):
        table = group.select(
            "stop",
            "delivery_id",
            _clock(since("arrives_at")).alias("arrive"),
            _clock(since("leaves_at")).alias("leave"),
            pl.format("{} to {}", _clock(pl.col("ready")), _clock(pl.col("due"))).alias("window"),
            pl.col("quantity").round(1).alias("unload"),
            pl.col("load").round(1).alias("load"),
            pl.col("km").round(1).alias("km"),
            pl.when(pl.col("agreed_until").is_not_null())
            .then(pl.format("agree on a time up to {}", _clock(since("agreed_until"))))
            .otherwise(pl.lit(""))
            .alias("note"),
        )
        write_csv_for_people(table, folder / _file_of(str(vehicle)))
        leaves = group.select(_clock(since("departs_at").min())).item()
        sheets.append(_sheet(str(vehicle), leaves, group, table))
    kept = {_file_of(vehicle) for vehicle in rows["vehicle_id"].unique().to_list()}
    for old in folder.glob("*.csv"):
        if old.name not in kept:
            old.unlink()
    page = folder / "dispatch.html"
    write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Dispatch lists "
        f"{day.isoformat()}</title><style>body{{font:14px sans-serif;margin:2em}}table{{border-collapse:collapse;width:100%}}"
        "td,th{border-bottom:1px solid #999;padding:5px;text-align:left}section{page-break-after:always}"
        "h1{font-size:20px}.sign{margin-top:2em}</style>" + "".join(sheets) + "</html>\n",
        page,
    )
    return page


def _clock(minutes_of_day: pl.Expr) -> pl.Expr:
    whole = minutes_of_day.round().cast(pl.Int64)
    hours, minutes = whole // 60, whole % 60
    return pl.format(
        "{}:{}", hours.cast(pl.String).str.zfill(2), minutes.cast(pl.String).str.zfill(2)
    )  # fmt: skip


def _file_of(vehicle: str) -> str:
    """Name of a vehicle's list; what file names cannot hold is percent-encoded, so that every vehicle has its own."""
    return re.sub(r'[%/\\:*?"<>|\x00-\x1f]', lambda found: f"%{ord(found[0]):02X}", vehicle) + ".csv"


def _sheet(vehicle: str, leaves: str, group: pl.DataFrame, table: pl.DataFrame) -> str:
    head = "".join(f"<th>{escape(name)}" for name in [*table.columns, "done"])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape('' if value is None else str(value))}" for value in row) + "<td>☐"
        for row in table.iter_rows()
    )
    most = float(group["load"].to_numpy().max())
    return (
        f"<section><h1>{escape(vehicle)}: {group.height} stops, leaves at {leaves}, loads {most:,.1f}, "
        f"{group['km'].sum():,.1f} km to the last stop</h1>"
        f"<table><thead><tr>{head}</thead><tbody>{body}</tbody></table>"
        "<p>Times are UTC.<p class=sign>Driver: ____________________</section>"
    )


def decisions_shown(plan: dict[str, pl.DataFrame] | None) -> pl.DataFrame:
    """Routes, dropped deliveries, warnings and sourcing in the columns of the report's table."""
    schema = {
        name: pl.Float64 if name in ("stake", "expected_cost", "naive_cost", "lower_bound") else pl.String
        for name in DECISION_COLUMNS
    }
    if plan is None:
        return pl.DataFrame(schema=schema)
    stake = (pl.col("naive_expected_cost") - pl.col("expected_cost")).alias("stake")
    costs: list[Any] = ["expected_cost", pl.col("naive_expected_cost").alias("naive_cost"), "lower_bound", "reason"]
    routes = plan["routes"].select(
        "decision_id",
        pl.lit("routes").alias("kind"),
        pl.format("delivery {}", "delivery_id").alias("subject"),
        pl.format("stop {} of {}", "stop", "vehicle_id").alias("action"),
        pl.col("arrives_at").dt.strftime("%Y-%m-%d %H:%M").alias("when"),
        stake,
        *costs,
    )
    dropped = plan["dropped"].select(
        "decision_id",
        pl.lit("dropped_deliveries").alias("kind"),
        pl.format("delivery {}", "delivery_id").alias("subject"),
        pl.lit("do not deliver").alias("action"),
        pl.lit("").alias("when"),
        stake,
        *costs,
    )
    alerts = plan["alerts"].select(
        "decision_id",
        pl.lit("alerts").alias("kind"),
        pl.format("{} {}", pl.col("kind").str.replace_all("_", " "), "subject").alias("subject"),
        pl.when(pl.col("agreed_until").is_not_null())
        .then(pl.lit("agree on a later time"))
        .when(pl.col("kind") == "late_risk")
        .then(pl.lit("watch"))
        .otherwise(pl.lit("see to it"))
        .alias("action"),
        pl.col("act_before").dt.strftime("%Y-%m-%d %H:%M").fill_null("").alias("when"),
        pl.max_horizontal("expected_saving", pl.lit(0.0)).alias("stake"),
        (-pl.col("expected_saving")).alias("expected_cost"),
        pl.lit(0.0).alias("naive_cost"),
        pl.when(pl.col("agreed_until").is_not_null())
        .then(pl.col("action_cost") - pl.col("money_at_risk"))
        .otherwise(0.0)
        .alias("lower_bound"),
        pl.col("action").alias("reason"),
    )
    sourcing = plan["sourcing"].select(
        "decision_id",
        pl.lit("sourcing").alias("kind"),
        pl.format("site {}", "site_id").alias("subject"),
        pl.when(pl.col("quantity") > 0)
        .then(pl.format("serve from {} (nearest {})", "source_id", "naive_source_id"))
        .otherwise(pl.lit("nothing can be sent"))
        .alias("action"),
        pl.lit("next seven days").alias("when"),
        stake,
        *costs,
    )
    return pl.concat([frame.cast(schema) for frame in (routes, dropped, alerts, sourcing)])  # type: ignore[arg-type]


def limits_shown(plan: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Limits of sourcing that bind, and vehicles that are worth something, in the columns of the report's table."""
    return (
        plan["worth"]
        .filter(pl.col("worth_per_unit") > 1e-9)
        .select(
            pl.col("subject").alias("supplier_id"),
            pl.when(pl.col("method") == "dual")
            .then(pl.lit("next seven days"))
            .otherwise(pl.lit("the day"))
            .alias("arrives_on"),
            pl.format("{} ({})", "limit", "method").alias("limit"),
            "amount",
            "used",
            "worth_per_unit",
        )
    )


def picture_place(home: Home, day: date) -> Path:
    """The map of a day's routes."""
    return plan_folder(home, day) / "map.svg"


def facts_shown(facts: dict[str, Any]) -> list[str]:
    """A line or two about the plan that the report shows under the map."""
    return [
        f"{facts['deliveries']} deliveries on {facts['routes']} routes, {facts['dropped']} dropped; planned with the "
        f"{facts['quantile']:.0%} quantile of traffic ({facts['factor']:.2f} times the usual driving time); {facts['ways']}."
    ]
