"""The public interface: every table that lands and every table that is decided, declared once."""

from npq_assets.contracts import common, decisions, logistics, manufacturing, retail
from npq_assets.contracts.base import Column, Kind, Table

DOMAINS = ("common", "retail", "manufacturing", "logistics")

LANDING: dict[str, Table] = {
    table.full_name: table for table in (*common.TABLES, *retail.TABLES, *manufacturing.TABLES, *logistics.TABLES)
}
DECISIONS: dict[str, Table] = {table.full_name: table for table in decisions.TABLES}


def landing_tables(domain: str) -> tuple[Table, ...]:
    """The landing tables of `domain`, in the order of the contract."""
    return tuple(table for table in LANDING.values() if table.domain == domain)


__all__ = ["DECISIONS", "DOMAINS", "LANDING", "Column", "Kind", "Table", "landing_tables"]
