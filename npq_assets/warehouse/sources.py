"""Writes the mechanical part of the dbt project from the contracts: sources and 1:1 staging models.

`python -m npq_assets.warehouse.sources` after a change of `npq_assets/contracts`; a test fails when it was forgotten. What
a number means belongs to the models that people write.
"""

from __future__ import annotations

from pathlib import Path

from npq_assets.contracts import DOMAINS, Column, Kind, Table, landing_tables
from npq_assets.storage import write_text
from npq_assets.warehouse.dbt import PROJECT

NOTE = "Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit."
_TRACE = {
    "source_file": "Landing file that the row came from, relative to landing.",
    "source_line": "Line of that file (row number for Parquet).",
}


def files() -> dict[Path, str]:
    """Path (relative to the dbt project) and text of every generated file."""
    found = {}
    for domain in DOMAINS:
        folder = Path("models/staging") / domain
        found[folder / "_sources.yml"] = _sources(domain)
        found[folder / "_models.yml"] = _models(domain)
        for table in landing_tables(domain):
            found[folder / f"stg_{domain}__{table.name}.sql"] = _staging(table)
    return found


def write() -> list[Path]:
    """Writes the generated files, removes those that no table needs any more; returns what was written."""
    wanted = files()
    for old in (PROJECT / "models/staging").rglob("*"):
        if old.is_file() and old.relative_to(PROJECT) not in wanted:
            old.unlink()
    for place, text in wanted.items():
        write_text(text, PROJECT / place)
    return sorted(wanted)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _sources(domain: str) -> str:
    lines = [
        f"# {NOTE}",
        "version: 2",
        "",
        "sources:",
        f"  - name: {domain}",
        f"    description: {_quoted(f'Accepted rows of the {domain} tables, as landed and checked against the contract.')}",
        "    tables:",
    ]
    for table in landing_tables(domain):
        lines += [
            f"      - name: {table.name}",
            f"        description: {_quoted(table.description)}",
            "        config:",
            "          meta:",
            "            dagster:",
            f"              asset_key: [raw, {domain}, {table.name}]",
        ]
        if table.time_column:
            lines += [
                "          freshness:",
                "            warn_after: {count: 2, period: day}",
                f'          loaded_at_query: "{_loaded_at(table)}"',
            ]
        lines.append("        columns:")
        for column in table.columns:
            lines += [f"          - name: {column.name}", f"            description: {_quoted(_described(column))}"]
        for name, text in _trace(table).items():
            lines += [f"          - name: {name}", f"            description: {_quoted(text)}"]
    return "\n".join(lines) + "\n"


def _loaded_at(table: Table) -> str:
    macro = "raw_by_day" if table.by_day else "raw"
    return f"select cast(max({table.time_column}) as timestamp) from {{{{ {macro}({_named(table)}) }}}}"


def _described(column: Column) -> str:
    words = column.description
    if column.choices:
        words += f" One of {', '.join(column.choices)}."
    if not column.required:
        words += " May be empty."
    if column.references:
        words += f" Found in {column.references}."
    return words


def _staging(table: Table) -> str:
    columns = [f"        cast({column.name} as {column.kind.sql_type}) as {column.name}" for column in table.columns]
    columns += ["        source_file", "        source_line"]
    source = "raw_by_day" if table.by_day else "raw"
    if table.by_day:
        columns.append(f"        {table.day_column}")
    select = ",\n".join(columns)
    # Whatever names or describes a person stays in one schema that can be closed to everybody else.
    personal = any(column.personal for column in table.columns)
    schema = "{{ config(schema='personal') }}\n\n" if personal else ""
    return (
        f"-- {NOTE}\n"
        f"{schema}"
        f"with source as (\n    select * from {{{{ {source}({_named(table)}) }}}}\n),\n\n"
        f"final as (\n    select\n{select}\n    from source\n)\n\nselect * from final\n"
    )


def _named(table: Table) -> str:
    """The arguments of the macro that reads a table."""
    return f"'{table.domain}', '{table.name}'" + (f", '{table.day_column}'" if table.by_day else "")


def _trace(table: Table) -> dict[str, str]:
    if not table.by_day:
        return _TRACE
    return {
        **_TRACE,
        table.day_column: "The day that the row is kept by; a condition on it reads only that day's files.",
    }


def _models(domain: str) -> str:
    lines = [f"# {NOTE}", "version: 2", "", "models:"]
    for table in landing_tables(domain):
        lines += [
            f"  - name: stg_{domain}__{table.name}",
            f"    description: {_quoted(table.description)}",
            "    columns:",
        ]
        for column in table.columns:
            lines += [f"      - name: {column.name}", f"        description: {_quoted(_described(column))}"]
            if column.key and column.required and column.kind is not Kind.TIMESTAMP and _small(table):
                lines.append("        data_tests: [not_null]")
        for name, text in _trace(table).items():
            lines += [f"      - name: {name}", f"        description: {_quoted(text)}"]
        if _small(table):
            key = ", ".join(table.key)
            lines += ["    data_tests:", "      - unique_combination:", f"          arguments: {{columns: [{key}]}}"]
    return "\n".join(lines) + "\n"


def _small(table: Table) -> bool:
    """Master data: its keys are cheap to test at every run; ingestion guarantees them for the rest."""
    return table.time_column is None


if __name__ == "__main__":
    for written in write():
        print(written)
