"""The table at the end of a run that a manager understands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

_NAMES = {
    "replenishment_orders": "orders for stores",
    "offers_sent": "offers to customers",
    "service_staffing": "staff of the service desk",
    "routes": "deliveries on routes",
    "alerts": "warnings acted on",
    "sourcing": "sources of sites",
    "production_plan": "products planned",
    "job_schedule": "lots scheduled",
    "maintenance_plan": "components kept",
    "quality_alerts": "units judged",
    "machine_settings": "machines set anew",
}


def summary_frame(ledger: pl.DataFrame) -> pl.DataFrame:
    """A row a kind of decision: decisions, expected, naive, bound, saving (share of naive), gap."""
    share = (pl.col("naive") - pl.col("expected")) / pl.col("naive")
    return (
        ledger.group_by("domain", "kind")
        .agg(
            pl.len().alias("decisions"),
            pl.col("expected_cost").sum().alias("expected"),
            pl.col("naive_cost").sum().alias("naive"),
            pl.col("lower_bound").sum().alias("bound"),
        )
        .with_columns(
            # Costs below zero are earnings: beside a rule that earns next to nothing a share would say anything.
            # Less than is shown is nothing: never -0.0 %.
            pl.when(pl.col("naive") > 0).then(pl.when(share.abs() < 0.0005).then(0.0).otherwise(share)).alias("saving"),
            pl.when(pl.col("expected") != 0)
            .then(((pl.col("expected") - pl.col("bound")) / pl.col("expected").abs()).clip(lower_bound=0))
            .otherwise(0.0)
            .alias("gap"),
        )
        .sort("domain", "kind")
    )


def kind_name(kind: str) -> str:
    """A decision table's name in plain words."""
    return _NAMES.get(kind, kind.replace("_", " "))


def summary_table(
    summary: pl.DataFrame, report: Path, seconds: float, currency: str = "", steps: Mapping[str, float] | None = None
) -> str:
    """The summary as plain text, and where the report lies.

    Args:
        summary: As `summary_frame` gives it.
        report: The decision report.
        seconds: Of the whole command.
        currency: Printed with money.
        steps: Seconds by kind of decision, if known.
    """
    unit = f" ({currency})" if currency else ""
    head = ("decisions", "how many", f"expected cost{unit}", "naive rule", "saving", "proven bound", "gap", "seconds")
    rows = [
        (
            f"{row['domain']}: {kind_name(row['kind'])}",
            f"{row['decisions']:,}",
            f"{row['expected']:,.2f}",
            f"{row['naive']:,.2f}",
            "" if row["saving"] is None else f"{row['saving']:.1%}",
            f"{row['bound']:,.2f}",
            f"{row['gap']:.2%}",
            f"{(steps or {}).get(row['kind'], seconds):.1f}",
        )
        for row in summary.to_dicts()
    ]
    if not rows:
        return f"\nNo decisions were made; the report says why: {report}\n({seconds:.1f} s)"
    widths = [max(len(line[k]) for line in [head, *rows]) for k in range(len(head))]

    def line(cells: tuple[str, ...]) -> str:
        first, *rest = cells
        return "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        )

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join(["", line(head), rule, *map(line, rows), rule, f"{seconds:.1f} s in all. Report: {report}", ""])
