"""The plant's parts and machines in the closed loop: the same luck in every world, and machines that know their own limits."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.company import streams
from npq_assets.company.landing import Beginning, LandingFolder, write_company
from npq_assets.company.plant import COMPONENTS, SETTINGS
from npq_assets.company.plant_world import PlantWorld, read_replacements
from npq_assets.company.wear import Wear
from npq_assets.contracts import DECISIONS
from npq_assets.errors import RunError
from npq_assets.publishing import write_decisions
from npq_assets.settings import Home
from npq_assets.storage import write_parquet

KEYS = streams.name_keys(["a", "b", "c"])
LIVES = np.array([60.0, 90.0])


def worn_out() -> Wear:
    return Wear(3, KEYS, LIVES, 80.0)


def test_the_nth_part_lives_as_long_in_every_world() -> None:
    ours, theirs = worn_out(), worn_out()
    lives: dict[tuple[int, int, int], set[int]] = {}
    for day in range(400):
        ours.step(day, [(0, 0)] if day % 20 == 0 else [])
        theirs.step(day, [])
        for wear in (ours, theirs):
            for m, c in np.ndindex(3, 2):
                lives.setdefault((m, c, int(wear.number[m, c])), set()).add(int(wear.life[m, c]))
    assert all(len(found) == 1 for found in lives.values())
    assert ours.number[0, 0] > theirs.number[0, 0]


def test_parts_fail_at_the_end_of_their_life_and_show_it_before_or_not_at_all() -> None:
    wear, before = worn_out(), {}
    sudden = shown = 0
    for day in range(1500):
        for part in wear.step(day, []):
            assert part.failed
            if (part.machine, part.component) in before:
                seen, warning = before[part.machine, part.component]
                sudden += warning == 0
                shown += warning > 0
                assert (seen > 0.8) == (warning > 0)
        worn = wear.worn(day)
        assert ((worn >= 0) & (worn <= 1)).all() and (wear.remaining(day) > 0).all()
        before = {(m, c): (float(worn[m, c]), int(wear.warning[m, c])) for m, c in np.ndindex(3, 2)}
    assert shown > 5 * max(sudden, 1)


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Beginning:
    return write_company(tmp_path_factory.mktemp("plant"), scale=0.05, days=60, seed=2)[1]


def decide_nothing(home: Home, day: date) -> None:
    """Empty plan and schedule: nothing is made."""
    for table in ("production_plan", "job_schedule"):
        write_decisions(home, DECISIONS[f"manufacturing.{table}"], day, DECISIONS[f"manufacturing.{table}"].empty())


def limits(home: Home) -> None:
    rows = [("M-DRY-01", s.name, s.low, s.high, s.ramp) for s in SETTINGS]
    schema = ["machine_id", "setting", "low", "high", "ramp_limit"]
    write_parquet(pl.DataFrame(rows, schema=schema, orient="row"), home.mart("manufacturing", "process_settings"))


def propose(home: Home, day: date, value: float, high: float, current: float) -> None:
    table = DECISIONS["manufacturing.machine_settings"]
    row = {
        "machine_id": ["M-DRY-01"], "setting": ["speed"], "current": [current], "proposed": [value], "low": [60.0],
        "high": [high], "expected_saving": [1.0], "decision_id": [f"d{day}"], "as_of": [day], "input_snapshot": ["s"],
    }  # fmt: skip
    write_decisions(home, table, day, pl.DataFrame(row))


def test_maintenance_alerts_and_settings_are_obeyed_and_land(beginning: Beginning, tmp_path: Path) -> None:
    home, world = Home.at(tmp_path), PlantWorld(beginning)
    folder, day = LandingFolder(home.landing), beginning.plant.company.config.as_of
    world.open(folder, day, day)
    decide_nothing(home, day)
    limits(home)
    machine = world._plant.machine_ids.index("M-DRY-01")
    usual = float(world._ours.settings[machine, 0])
    propose(home, day, usual + 5.0, 120.0, usual)
    table = DECISIONS["manufacturing.maintenance_plan"]
    plan = {
        "machine_id": ["M-DRY-01", "M-DRY-01"], "component": ["pump", "heater"],
        "planned_on": [day, day + timedelta(days=1)], "failure_probability": [0.5, 0.5], "expected_saving": [1.0, 1.0],
        "reason": ["", ""], "decision_id": ["a", "b"], "as_of": [day, day], "input_snapshot": ["s", "s"],
    }  # fmt: skip
    write_decisions(home, table, day, pl.DataFrame(plan))
    assert read_replacements(home, world._plant, day) == [(machine, 1)]
    unit = world._waiting[0]["unit_id"][1]
    alert = {
        "unit_id": [unit], "defect_probability": [0.9], "likely_defect": ["leak"], "action": ["inspect"],
        "decision_id": ["q"], "as_of": [day], "input_snapshot": ["s"],
    }  # fmt: skip
    write_decisions(home, DECISIONS["manufacturing.quality_alerts"], day, pl.DataFrame(alert))
    rows = world.step(home, folder, day)
    failures = sum(row.npq for row in rows if row.kind == "failures")
    assert failures >= COMPONENTS[1].planned_cost and world._ours.wear.age(world._plant.offset(day))[machine, 1] == 0
    assert world._ours.settings[machine, 0] == usual + 5.0 and world._theirs.settings[machine, 0] == usual
    landing = home.landing / "manufacturing"
    replaced = pl.read_csv(landing / "component_replacements" / f"replacements-{day}.csv")
    assert ("M-DRY-01", "pump", "planned") in replaced.select("machine_id", "component", "cause").rows()
    assert pl.read_csv(landing / "inspections" / f"inspections-{day}.csv")["unit_id"].to_list() == [unit]
    changed = pl.read_csv(landing / "setting_changes" / f"setting-changes-{day}.csv")
    assert changed.select("setting", "value", "decision_id").rows() == [("speed", round(usual + 5.0, 6), f"d{day}")]
    for name in ("telemetry", "measurements"):
        assert list((landing / name).glob("*.csv"))


@pytest.mark.parametrize("value, high", [(121.0, 120.0), (300.0, 400.0)])
def test_no_set_point_beyond_the_limits_reaches_a_machine(
    beginning: Beginning, tmp_path: Path, value: float, high: float
) -> None:
    """Also one whose decision lies about its limits: the last door knows those of the master data."""
    from npq_assets.errors import NpqError

    home, world = Home.at(tmp_path), PlantWorld(beginning)
    folder, day = LandingFolder(home.landing), beginning.plant.company.config.as_of
    world.open(folder, day, day)
    decide_nothing(home, day)
    limits(home)
    before = world._ours.settings.copy()
    propose(home, day, value, high, 90.0)
    with pytest.raises(NpqError, match="not approved"):
        world.step(home, folder, day)
    assert (world._ours.settings == before).all()
    assert not list((home.root / "outbox").rglob("*.json"))


def test_a_plan_for_an_unknown_machine_is_an_error_of_the_run(beginning: Beginning, tmp_path: Path) -> None:
    home, world = Home.at(tmp_path), PlantWorld(beginning)
    day = beginning.plant.company.config.as_of
    plan = {
        "machine_id": ["nowhere"], "component": ["pump"], "planned_on": [day], "failure_probability": [0.5],
        "expected_saving": [1.0], "reason": [""], "decision_id": ["a"], "as_of": [day], "input_snapshot": ["s"],
    }  # fmt: skip
    write_decisions(home, DECISIONS["manufacturing.maintenance_plan"], day, pl.DataFrame(plan))
    with pytest.raises(RunError, match="nowhere"):
        read_replacements(home, world._plant, day)
