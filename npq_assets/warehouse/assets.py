"""dbt models as assets: one step a domain, and one for the evaluation that follows the ledger."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import dbt_assets
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

from npq_assets.ingestion import balances
from npq_assets.orchestration import RETRY, WAREHOUSE_POOL, HomeResource
from npq_assets.periods import period_of
from npq_assets.settings import Home
from npq_assets.storage import fingerprint, write_json, write_text
from npq_assets.warehouse import dbt
from npq_assets.warehouse.translator import FolderTranslator, place

TRANSLATOR = FolderTranslator()
_EXPORTED_LAYERS = {"marts", "evaluation"}
# What Python wrote that evaluations read, by step.
_WRITTEN = {
    "evaluate_retail": (
        "decisions/all/ledger/*/*.parquet",
        "decisions/retail/messages/*/messages.parquet",
        "forecasts/retail/*/forecast.parquet",
        "evaluations/retail/*/*/*.parquet",
    ),
    "evaluate_manufacturing": ("decisions/manufacturing/production_plan/*/production_plan.parquet",),
}


def domain_models(domain: str) -> dg.AssetsDefinition:
    """Staging, intermediate and marts of a domain."""
    present = {place(node) for node in dbt.manifest()["nodes"].values() if node["resource_type"] == "model"}
    layers = [layer for layer in ("staging", "intermediate", "marts") if (layer, domain) in present]
    return _step(f"transform_{domain}", " ".join(f"fqn:npq.{layer}.{domain}" for layer in layers))


def evaluation_models(domain: str) -> dg.AssetsDefinition:
    """The evaluation of a domain's past decisions."""
    return _step(f"evaluate_{domain}", f"fqn:npq.evaluation.{domain}")


def _step(name: str, select: str) -> dg.AssetsDefinition:
    @dbt_assets(
        manifest=dbt.manifest(),
        select=select,
        name=name,
        dagster_dbt_translator=TRANSLATOR,
        pool=WAREHOUSE_POOL,
        retry_policy=RETRY,
    )
    def step(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[Any]:
        yield from build(context, home, select)

    return step


def build(context: dg.AssetExecutionContext, home: HomeResource, select: str) -> Iterator[Any]:
    """Builds the selected models of a step, hands dbt's events to Dagster as they come, then exports the marts.

    A step whose inputs are as they were is not built again: its models stand, and its tests gave what they gave.
    """
    manifest = dbt.manifest()
    chosen = (
        [manifest["nodes"][unique_id] for unique_id in _selected_models(context, manifest)]
        if context.is_subset
        else [node for node in manifest["nodes"].values() if _matches(node, select)]
    )
    words = tuple(f"fqn:{'.'.join(node['fqn'])}" for node in chosen) if context.is_subset else tuple(select.split())
    variables = (("period", period_of(home.home)), ("shift_hours", list(home.home.settings.shift_hours)))
    state = BuiltState.of(home.home, context.op_execution_context.op.name, chosen, (words, variables))
    if (checks := state.standing()) is not None:
        yield from _as_it_stands(context, chosen, checks)
        return
    state.forget()
    results: list[dict[str, Any]] = []
    leave = _tests_beyond(manifest, chosen) if context.is_subset else ()
    # Models that keep days were built by the SQL of their time: other SQL builds all days again.
    made_by = state.place.with_suffix(".project")
    wanted = fingerprint(dbt.project_hash(), repr(variables))
    anew = ("--full-refresh",) if not made_by.exists() or made_by.read_text() != wanted else ()
    for event in dbt.Invocation(home.home, ("build", *anew), words, leave, variables=variables).stream():
        message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata={})
        for result in message.to_default_asset_events(manifest, TRANSLATOR, context):
            if isinstance(result, dg.AssetCheckResult):
                results.append(_kept(result))
            yield result
    rows = dbt.export_marts(home.home, exported(chosen))
    if rows:
        context.log.info("Exported " + ", ".join(f"{name} ({count:,} rows)" for name, count in rows.items()))
    if not context.is_subset or made_by.exists():
        write_text(wanted, made_by)
    state.keep(results)


def _tests_beyond(manifest: Mapping[str, Any], chosen: list[Mapping[str, Any]]) -> tuple[str, ...]:
    """Tests of a part of a step that compare it with models which the part neither builds nor reads: those may be absent or old."""
    nodes = manifest["nodes"]
    known: set[str] = set()
    waiting = [node["unique_id"] for node in chosen]
    while waiting:
        key = waiting.pop()
        if key in nodes and key not in known:
            known.add(key)
            waiting += nodes[key]["depends_on"]["nodes"]
    return tuple(
        f"fqn:{'.'.join(node['fqn'])}"
        for node in nodes.values()
        if node["resource_type"] == "test"
        and any(
            parent.startswith("model.") and parent not in known and "common" not in nodes[parent]["fqn"]
            for parent in node["depends_on"]["nodes"]
        )
        and any(parent in known for parent in node["depends_on"]["nodes"])
    )


def _kept(result: dg.AssetCheckResult) -> dict[str, Any]:
    assert result.asset_key is not None
    return {
        "asset": list(result.asset_key.path),
        "check": result.check_name,
        "passed": bool(result.passed),
        "severity": result.severity.value,
    }


def _as_it_stands(
    context: dg.AssetExecutionContext, chosen: list[Mapping[str, Any]], checks: list[dict[str, Any]]
) -> Iterator[Any]:
    by_id = {node["unique_id"]: node for node in chosen}
    parents = {key: {p for p in node["depends_on"]["nodes"] if p in by_id} for key, node in by_id.items()}
    for key in TopologicalSorter(parents).static_order():
        name = TRANSLATOR.get_asset_key(by_id[key]).to_python_identifier()
        yield dg.Output(None, output_name=name, metadata={"unchanged": True})
    for check in checks:
        key = dg.AssetCheckKey(dg.AssetKey(check["asset"]), check["check"])
        if key in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=key.name,
                passed=check["passed"],
                severity=dg.AssetCheckSeverity(check["severity"]),
                metadata={"unchanged": True},
            )


@dataclass(frozen=True)
class BuiltState:
    """What a step was last built from, and how its tests went; kept beside the warehouse.

    Attributes:
        place: The file that remembers.
        inputs: Hash of everything the step reads: raw tables, upstream models' inputs, SQL, selection and variables.
        files: Marts that must still be there.
    """

    place: Path
    inputs: str
    files: tuple[Path, ...]

    @classmethod
    def of(cls, home: Home, name: str, chosen: list[Mapping[str, Any]], invocation: object) -> "BuiltState":
        """The state of a step on a home, as its inputs are now."""
        sources = _sources_of(chosen)
        tables = {table: found.fingerprint for table, found in balances(home).items() if table in sources}
        written = sorted(
            f"{file.relative_to(home.root)}:{file.stat().st_size}:{file.stat().st_mtime_ns}"
            for pattern in _WRITTEN.get(name, ())
            for file in home.root.glob(pattern)
        )
        inputs = fingerprint(tables, repr(written), repr(invocation), dbt.project_hash())
        files = tuple(home.mart(*place_.split("/")) for place_ in exported(chosen))
        return cls(home.warehouse.parent / "built" / f"{name}.json", inputs, files)

    def standing(self) -> list[dict[str, Any]] | None:
        """How the tests went when the step was built from these very inputs; None if it must be built."""
        if not self.place.exists() or not all(file.exists() for file in self.files):
            return None
        kept = json.loads(self.place.read_text())
        return list(kept["checks"]) if kept["inputs"] == self.inputs else None

    def keep(self, checks: list[dict[str, Any]]) -> None:
        """Remembers a finished build."""
        write_json({"inputs": self.inputs, "checks": checks}, self.place)

    def forget(self) -> None:
        """A build that does not finish leaves no state behind."""
        self.place.unlink(missing_ok=True)


def _sources_of(nodes: list[Mapping[str, Any]]) -> set[str]:
    """Raw tables, as `domain.table`, that the nodes are made from, directly or by way of other models."""
    manifest = dbt.manifest()
    waiting, seen = [node["unique_id"] for node in nodes], set()
    while waiting:
        unique_id = waiting.pop()
        if unique_id not in seen:
            seen.add(unique_id)
            waiting += manifest["parent_map"].get(unique_id, [])
    return {".".join(unique_id.split(".")[2:]) for unique_id in seen if unique_id.startswith("source.")}


def exported(nodes: list[Mapping[str, Any]]) -> dict[str, str]:
    """Relation by `domain/model` of the models whose rows Python reads."""
    found = {}
    for node in nodes:
        if node["resource_type"] == "model" and place(node)[0] in _EXPORTED_LAYERS:
            found[f"{place(node)[1]}/{node['name']}"] = f'"{node["schema"]}"."{node["alias"]}"'
    return found


def _matches(node: Mapping[str, Any], select: str) -> bool:
    folders = [tuple(word.removeprefix("fqn:").split(".")) for word in select.split()]
    return node["resource_type"] == "model" and any(tuple(node["fqn"][: len(f)]) == f for f in folders)


def _selected_models(context: dg.AssetExecutionContext, manifest: Mapping[str, Any]) -> list[str]:
    by_key = {
        TRANSLATOR.get_asset_key(node): unique_id
        for unique_id, node in manifest["nodes"].items()
        if node["resource_type"] == "model"
    }
    return sorted(by_key[key] for key in context.selected_asset_keys if key in by_key)


__all__ = ["TRANSLATOR", "BuiltState", "build", "domain_models", "evaluation_models", "exported"]
