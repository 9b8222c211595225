"""The graph as Dagster sees it: unbroken from landing file to report, grouped and keyed by rule."""

import dagster as dg
import pytest

from npq_assets.build import SYSTEMS, build_defs
from npq_assets.contracts import LANDING
from npq_assets.ingestion.sensor import changes


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_defs()


def test_lineage_runs_unbroken_from_landing_to_report(definitions: dg.Definitions) -> None:
    graph = definitions.get_repository_def().asset_graph
    waiting, upstream = [dg.AssetKey(["reports", "decision_report"])], set()
    while waiting:
        for parent in graph.get(waiting.pop()).parent_keys:
            if parent.to_user_string() not in upstream:
                upstream.add(parent.to_user_string())
                waiting.append(parent)
    for name in ("sales", "stock", "supply_terms", "open_orders", "availability", "offers", "supplier_limits"):
        assert f"landing/retail/{name}" in upstream
        assert f"raw/retail/{name}" in upstream
        assert f"staging/retail/stg_retail__{name}" in upstream
    for name in (
        "marts/retail/demand",
        "forecast/retail/demand_forecast",
        "plan/retail/replenishment_plan",
        "decisions/retail/replenishment_orders",
        "decisions/all/ledger",
        "evaluation/retail/decision_costs",
    ):
        assert name in upstream


def test_every_asset_has_a_group_and_a_description(definitions: dg.Definitions) -> None:
    graph = definitions.get_repository_def().asset_graph
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.group_name != "default", key
        assert node.description, key


def test_every_table_has_its_chain(definitions: dg.Definitions) -> None:
    keys = {key.to_user_string() for key in definitions.get_repository_def().asset_graph.get_all_asset_keys()}
    for table in LANDING.values():
        place = f"{table.domain}/{table.name}"
        assert {f"landing/{place}", f"raw/{place}", f"staging/{table.domain}/stg_{table.domain}__{table.name}"} <= keys


def test_balance_and_plan_checks_block(definitions: dg.Definitions) -> None:
    graph = definitions.get_repository_def().asset_graph
    blocking = {check.to_user_string() for check in graph.asset_check_keys if graph.get_check_spec(check).blocking}
    assert {f"raw/retail/sales:balance", "plan/retail/replenishment_plan:bound"} <= blocking  # noqa: F541


def test_there_is_a_job_per_system_and_one_for_all(definitions: dg.Definitions) -> None:
    for name in ("everything", "ingest", "transform", "decide", "documentation", *SYSTEMS):
        assert definitions.resolve_job_def(name)


def test_a_systems_job_stages_what_its_models_read_of_others(definitions: dg.Definitions) -> None:
    graph = definitions.get_repository_def().asset_graph
    selected = definitions.resolve_job_def("retail").asset_layer.selected_asset_keys
    for key in [key for key in selected if key.path[0] in ("staging", "intermediate", "marts")]:
        wanted = {parent for parent in graph.get(key).parent_keys if parent.path[0] != "landing"}
        assert wanted <= selected, key
    assert dg.AssetKey(["staging", "logistics", "stg_logistics__trips"]) in selected
    assert dg.AssetKey(["marts", "logistics", "fleet"]) not in selected


def test_a_file_counts_when_two_ticks_saw_it_alike() -> None:
    first = changes({}, {"a": "1:1"})
    assert (first.ready, first.settling) == (set(), 1)
    second = changes(first.cursor, {"a": "1:1", "b": "2:2"})
    assert (second.ready, second.settling) == ({"a"}, 1)
    third = changes(second.cursor, {"a": "1:1", "b": "3:3"})
    assert (third.ready, third.settling) == (set(), 1)
    fourth = changes(third.cursor, {"a": "9:9", "b": "3:3"})
    assert fourth.ready == {"b"}
    fifth = changes(fourth.cursor, {"a": "9:9", "b": "3:3"})
    assert fifth.ready == {"a"}
    assert changes(fifth.cursor, {"a": "9:9", "b": "3:3"}).ready == set()


def test_the_sensor_starts_exactly_what_new_files_touch(tmp_path, definitions: dg.Definitions) -> None:  # type: ignore[no-untyped-def]
    from npq_assets.orchestration import HomeResource

    place = tmp_path / "landing/retail/stock"
    place.mkdir(parents=True)
    (place / "a.csv").write_text("counted_on,site_id,product_id,on_hand\n")
    repository = definitions.get_repository_def()
    sensor = repository.get_sensor_def("new_landing_files")
    cursor = None
    for _ in range(2):
        with dg.build_sensor_context(
            cursor=cursor, repository_def=repository, resources={"home": HomeResource(root=str(tmp_path))}
        ) as context:
            result = sensor.evaluate_tick(context)
            cursor = result.cursor
    [request] = result.run_requests
    keys = {key.to_user_string() for key in request.asset_selection}
    assert "raw/retail/stock" in keys and "marts/retail/stock_position" in keys
    assert "raw/retail/sales" not in keys and "marts/retail/demand" not in keys
    assert not any(key.startswith(("forecast", "decisions")) for key in keys)
