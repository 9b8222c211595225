"""Equipment on the report's page: parts at risk and the plan, units and processes, settings."""

from __future__ import annotations

from datetime import date
from html import escape

import polars as pl

from npq_assets.manufacturing.control import ControlDecision
from npq_assets.manufacturing.equipment_output import load, skipped
from npq_assets.manufacturing.maintenance import MaintenanceDecision
from npq_assets.manufacturing.quality import QualityDecision
from npq_assets.reporting.report import Section
from npq_assets.settings import Home

_TITLES = {"maintenance": "Components at risk", "quality": "Units and processes", "control": "Settings of machines"}


def equipment_sections(home: Home, day: date) -> list[Section]:
    """The report's pages of equipment; what could not be decided is there with its reason."""
    found = []
    for part, title in _TITLES.items():
        decision = load(home, day, part)
        if decision is None:
            reason = skipped(home, day, part)
            found += [Section(title, reason)] if reason else []
        elif part == "maintenance":
            found.append(_maintenance_shown(decision, title))
        elif part == "quality":
            found += _quality_shown(home, decision, title, day)
        else:
            found.append(_control_shown(decision, title))
    return found


def _maintenance_shown(decision: MaintenanceDecision, title: str) -> Section:
    facts = decision.facts
    lead = (
        f"Expected cost of the coming {facts['horizon_days']} days: {facts['expected_cost']:,.0f}, proven bound "
        f"{facts['lower_bound']:,.0f}; run to failure {facts['run_to_failure_cost']:,.0f}, best fixed ages "
        f"{facts['fixed_interval_cost']:,.0f}. {decision.plan.height} replacements planned."
    )
    planned = decision.plan.select("machine_id", "component", "planned_on", "expected_saving")
    rows = decision.risks.join(planned, on=["machine_id", "component"], how="left").sort(
        ["money_at_risk", "machine_id", "component"], descending=[True, False, False]
    )
    table = rows.head(25).select(
        pl.col("machine_id").alias("Machine"), pl.col("component").alias("Component"),
        pl.col("failure_probability").round(3).alias("Fails in a week"),
        pl.format("{} ({} to {})", pl.col("remaining_days").cast(pl.Int64), pl.col("remaining_low").cast(pl.Int64),
                  pl.col("remaining_high").cast(pl.Int64)).alias("Days left, 10 to 90 %"),
        pl.col("money_at_risk").round(0).alias("At risk"), pl.col("planned_on").alias("Replace on"),
        pl.col("expected_saving").round(0).alias("Saves"), pl.col("reason").alias("Why"),
    )  # fmt: skip
    lines = [str(line) for line in facts["skipped"]]
    if facts["crew_price"]:
        dear = max(facts["crew_price"].items(), key=lambda item: item[1])
        if dear[1] > 0.5:
            lines.append(f"One more replacement on day {int(dear[0]) + 1} would save {dear[1]:,.0f}.")
    return Section(title, lead, table, lines=lines)


def _quality_shown(home: Home, decision: QualityDecision, title: str, day: date) -> list[Section]:
    facts = decision.facts
    if facts.get("threshold") is None:
        lead = "No unit is worth an inspection by its measurements."
    else:
        lead = (
            f"{facts['alerts']} of {facts['open_units']} open units are worth an inspection (from a probability of "
            f"{facts['threshold']:.1%}). On units that the model had not seen this costs {facts['cost_per_unit_held_out']:.2f} a "
            f"unit; inspecting all {facts['cost_per_unit_all_inspected']:.2f}, none "
            f"{facts['cost_per_unit_none_inspected']:.2f}."
        )
    alerts = decision.alerts.sort(["expected_saving", "unit_id"], descending=[True, False]).head(20).select(
        pl.col("unit_id").alias("Unit"), pl.col("machine_id").alias("Machine"),
        pl.col("defect_probability").round(3).alias("Defective"), pl.col("likely_defect").alias("Likely"),
        pl.col("action").alias("Do"), pl.col("reason").alias("Why"),
    )  # fmt: skip
    lines = [*decision.signals["reason"].to_list(), *(str(line) for line in facts["skipped"])]
    found = [Section(title, lead, alerts, lines=lines)]
    capable = _capability(home, day)
    if capable.height:
        words = "Cp and Cpk of the last full week, by the moving range; below 1 a capable process does not fit its tolerance."
        found.append(Section("How processes fit their tolerances", words, capable, picture=capability_picture(capable)))
    return found


def _capability(home: Home, day: date) -> pl.DataFrame:
    place = home.mart("manufacturing", "process_capability")
    if not place.exists():
        return pl.DataFrame()
    rows = pl.read_parquet(place).filter(pl.col("week_start") + pl.duration(days=7) <= pl.lit(day))
    last = rows["week_start"].max()
    if last is None:
        return pl.DataFrame()
    return (
        rows.filter(pl.col("week_start") == last)
        .sort("cpk", "machine_id", "feature", "product_id", nulls_last=True)
        .head(20)
        .select(
            pl.col("machine_id").alias("Machine"), pl.col("feature").alias("Feature"),
            pl.col("product_id").alias("Product"), pl.col("units").alias("Units"), pl.col("mean").round(3).alias("Mean"),
            pl.col("cp").round(2).alias("Cp"), pl.col("cpk").round(2).alias("Cpk"), pl.col("ppk").round(2).alias("Ppk"),
            (100 * pl.col("outside_share")).round(1).alias("Outside %"),
        )
    )  # fmt: skip


def capability_picture(rows: pl.DataFrame, width: int = 620) -> str:
    """Cpk as bars with a line at 1.33, as an inline SVG.

    Args:
        rows: Machine, Feature, Cpk.
        width: Pixels.
    """
    shown = rows.drop_nulls("Cpk")
    if shown.is_empty():
        return ""
    row, left, top = 20, 230, 16
    height = top + row * shown.height + 6
    highest = max(2.0, float(shown["Cpk"].max() or 0.0))  # type: ignore[arg-type]

    def x(value: float) -> float:
        return left + (width - left - 50) * max(value, 0.0) / highest

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Cpk by machine and feature" '
        'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11">'
    ]
    for k, (machine, feature, value) in enumerate(shown.select("Machine", "Feature", "Cpk").iter_rows()):
        y = top + row * k
        color = "#b3564a" if value < 1 else "#c2872f" if value < 1.33 else "#7a9a5b"
        parts.append(
            f'<text x="{left - 6}" y="{y + 14}" text-anchor="end" fill="#778">{escape(f"{machine} {feature}")}</text>'
            f'<rect x="{left}" y="{y + 3}" width="{max(x(value) - left, 1):.1f}" height="{row - 7}" fill="{color}"/>'
            f'<text x="{x(value) + 4:.1f}" y="{y + 14}" fill="#778">{value:.2f}</text>'
        )
    for mark in (1.0, 1.33):
        parts.append(
            f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{top}" y2="{height - 4}" stroke="#8888" stroke-width=".8"/>'
            f'<text x="{x(mark):.1f}" y="11" text-anchor="middle" fill="#778">{mark:g}</text>'
        )
    return "".join([*parts, "</svg>"])


def _control_shown(decision: ControlDecision, title: str) -> Section:
    rows = decision.settings
    lead = (
        f"{rows.height} set-points proposed; a person approves them (npq settings approve), nothing is sent before."
        if rows.height
        else "No setting should change today."
    )
    table = rows.select(
        pl.col("machine_id").alias("Machine"), pl.col("setting").alias("Setting"), pl.col("current").alias("Now"),
        pl.col("proposed").alias("Proposed"), pl.format("{} to {}", "low", "high").alias("Limits"),
        pl.col("expected_saving").round(2).alias("Saves a day"),
        pl.format("{} to {}", pl.col("saving_low").round(1), pl.col("saving_high").round(1)).alias("Machine in all, 90 %"),
        pl.col("kind").alias("Kind"), pl.col("reason").alias("Why"),
    )  # fmt: skip
    lines = [f"{machine}: {reason}." for machine, reason in decision.refusals.iter_rows()]
    return Section(title, lead, table, lines=[*lines, *(str(line) for line in decision.facts["skipped"])])
