"""Balances for people and for programs."""

from __future__ import annotations

from typing import Any

from npq_assets.ingestion.store import TableBalance

_NUMBERS = ("files", "landed", "accepted", "superseded", "quarantined", "unreadable_files")


def balance_json(balances: dict[str, TableBalance]) -> dict[str, dict[str, Any]]:
    """`{"<domain>.<table>": {"files": …, "landed": …, …, "reasons": {…}}}` for tables that have files."""
    return {
        name: {**{number: getattr(balance, number) for number in _NUMBERS}, "waiting_files": balance.waiting_files,
               "reasons": balance.reasons, "remarks": list(balance.remarks)}
        for name, balance in balances.items()
        if balance.files or balance.waiting_files
    }  # fmt: skip


def balance_table(balances: dict[str, TableBalance]) -> str:
    """A table for a terminal, with the reasons under each table that has any."""
    rows = [(name, balance) for name, balance in balances.items() if balance.files or balance.waiting_files]
    if not rows:
        return "no landing files"
    width = max(len(name) for name, _ in rows)
    lines = [f"{'table':<{width}}" + "".join(f"{number.replace('_', ' '):>18}" for number in _NUMBERS)]
    for name, balance in rows:
        lines.append(f"{name:<{width}}" + "".join(f"{getattr(balance, number):>18,}" for number in _NUMBERS))
        lines += [f"{'':<{width}}  {count:,} x {reason}" for reason, count in balance.reasons.items()]
        lines += [f"{'':<{width}}  {remark}" for remark in balance.remarks]
        if balance.waiting_files:
            lines.append(f"{'':<{width}}  {balance.waiting_files} still being written")
    return "\n".join(lines)
