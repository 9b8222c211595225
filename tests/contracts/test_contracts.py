"""Declarations that hold together, and the page that is made of them."""

from npq_assets.contracts import DECISIONS, LANDING, Kind
from npq_assets.contracts.documentation import PAGE, page


def test_the_page_is_in_step() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m npq_assets.contracts.documentation"


def test_every_landing_table_has_a_key_and_descriptions() -> None:
    for table in LANDING.values():
        assert table.key, table.full_name
        assert table.description
        names = [column.name for column in table.columns]
        assert len(names) == len(set(names))
        assert all(column.description for column in table.columns)


def test_references_lead_to_tables_with_a_key_of_one_column() -> None:
    for table in LANDING.values():
        for column in table.columns:
            if column.references:
                assert len(LANDING[column.references].key) == 1


def test_time_columns_are_dates_or_timestamps() -> None:
    for table in LANDING.values():
        if table.time_column:
            assert table.column(table.time_column).kind in (Kind.DATE, Kind.TIMESTAMP)


def test_every_decision_leads_back() -> None:
    for table in DECISIONS.values():
        assert {"decision_id", "input_snapshot"} <= set(table.schema)
        assert "as_of" in table.schema or "decided_at" in table.schema


def test_the_published_columns_stand() -> None:
    published = {
        "retail.sales": "sold_on site_id product_id quantity price promotion",
        "retail.supply_terms": "site_id product_id lead_time_periods holding_cost shortage_cost pack_size min_order supplier_id",
        "common.products": "product_id name family unit_cost unit_price holding_cost weight_kg",
        "manufacturing.production_log": (
            "produced_on machine_id product_id good_quantity scrap_quantity run_minutes setup_minutes down_minutes energy_kwh"
        ),
        "logistics.vehicles": (
            "vehicle_id depot_id capacity fixed_cost cost_per_km cost_per_hour shift_start shift_end max_km"
        ),
    }
    for name, columns in published.items():
        assert list(LANDING[name].schema)[: len(columns.split())] == columns.split()
    orders = "site_id product_id arrives_on quantity expected_cost naive_quantity naive_expected_cost reason"
    assert list(DECISIONS["retail.replenishment_orders"].schema)[:8] == orders.split()
