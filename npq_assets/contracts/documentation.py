"""The contract as a page for people: `python -m npq_assets.contracts.documentation` writes docs/contracts.md."""

from __future__ import annotations

from pathlib import Path

from npq_assets.contracts import DECISIONS, DOMAINS, landing_tables
from npq_assets.contracts.base import Column, Table
from npq_assets.storage import write_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contracts.md"

_HEAD = """# Contracts: the files in, the decisions out

Generated from `npq_assets/contracts` by `python -m npq_assets.contracts.documentation`; do not edit.

Files land in `<home>/landing/<domain>/<table>/<any name>.{csv,csv.gz,parquet}`. Columns are found by name, in any order. CSV
may be UTF-8 with or without BOM, UTF-16 with BOM or GB18030, separated by comma, semicolon or tab. Where the semicolon
separates, numbers may carry a decimal comma. Dates are ISO (`2024-04-15`; `2024/4/15` is understood, day-first dates are not
guessed), timestamps ISO with zone (UTC when none is given). Quantities are in the product's unit, money in the company's
currency, time in minutes, distance in km, energy in kWh.

A row that breaks the contract goes to `<home>/quarantine/<domain>/<table>/` with its file, line and reason; a file that cannot
be read at all is quarantined whole. Rows landed = rows accepted + rows superseded + rows quarantined. A row of the same key in
a later file supersedes the earlier one; the same file again changes nothing. Of two rows of one key in one file the first
counts; the other is superseded if it says the same, else quarantined. Foreign keys are checked once the table they lead to has
rows, and a row comes back from quarantine when what it refers to lands.

**Key** columns identify a row; *required* ones must be filled.
"""


def page() -> str:
    """The page's text."""
    parts = [_HEAD]
    for domain in DOMAINS:
        parts.append(f"\n## Landing: {domain}\n")
        parts += [_table(table) for table in landing_tables(domain)]
    parts.append(
        "\n## Decisions\n\n`<home>/decisions/<domain>/<table>/as_of=<date>/<table>.parquet`, and a CSV beside each for people. "
        "The same inputs give the same bytes. Tables that no system decides yet are declared so that what is built on them "
        "can be prepared.\n"
    )
    parts += [_table(table) for table in DECISIONS.values()]
    return "".join(parts)


def _table(table: Table) -> str:
    lines = [f"\n### {table.full_name}\n\n{table.description}"]
    if table.any_of:
        lines[0] += " " + " ".join(f"At least one of {', '.join(group)} must be filled." for group in table.any_of)
    if table.ordered:
        lines[0] += " " + " ".join(f"{later} must not be before {first}." for first, later in table.ordered)
    if table.extra_columns:
        lines[0] += " Further columns are kept as text."
    lines += ["", "| column | kind | | meaning |", "| --- | --- | --- | --- |"]
    lines += [_row(column) for column in table.columns]
    return "\n".join(lines) + "\n"


def _row(column: Column) -> str:
    rule = "**key**" if column.key else "*required*" if column.required else "optional"
    if column.key and not column.required:
        rule = "**key**, may be empty"
    words = column.description
    if column.choices:
        words += f" One of {', '.join(column.choices)}."
    if column.low is not None or column.high is not None:
        low = f"from {column.low:g}" if column.low is not None else ""
        high = f"to {column.high:g}" if column.high is not None else ""
        words += f" Allowed {f'{low} {high}'.strip()}."
    if column.past:
        words += " Not after the file was written (by more than ten minutes), nor before the year 2000."
    if column.references:
        words += f" Found in {column.references}."
    return f"| {column.name} | {column.kind.value} | {rule} | {words} |"


if __name__ == "__main__":
    write_text(page(), PAGE)
    print(PAGE)
