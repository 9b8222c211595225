"""What a driven day did cost: only what trips and terms show is booked, and a day that is over leaves nothing out."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from npq_assets.evaluation.ledger import LEDGER
from npq_assets.logistics.outcome import realized, settle_accounts
from npq_assets.logistics.output import FRAMES, plan_folder
from npq_assets.settings import Home
from npq_assets.storage import write_json, write_parquet

OPENED = datetime(2024, 5, 6, tzinfo=UTC)
STAMP = pl.Datetime("us", "UTC")


def at(hour: float) -> datetime:
    return OPENED + timedelta(hours=hour)


@dataclass
class Day:
    """Two deliveries on one tour; the first is 66 minutes late, and a warning advised to agree on 9 o'clock for 4."""

    agreed: list[datetime | None] = field(default_factory=lambda: [at(9), None])
    km: list[float | None] = field(default_factory=lambda: [10.0, 5.0])
    planned_km: list[float] = field(default_factory=lambda: [11.0, 6.0])
    vehicle: str = "v"
    driven: int = 2
    warned: bool = True
    dropped: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # deliveries of another day

    def settle(self, *, over: bool = False) -> dict[str, dict[str, float | None]]:
        plan, legs, vehicles, deliveries = self.frames()
        found = realized(plan, legs, vehicles, deliveries, over=over)
        return {row["decision_id"]: row for row in found.to_dicts()}

    def frames(self) -> tuple[dict[str, pl.DataFrame], pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """Plan, legs, vehicles and deliveries."""
        plan = {
            "routes": pl.DataFrame({"decision_id": ["r1", "r2"], "delivery_id": ["a", "b"], "km": self.planned_km}),
            "dropped": pl.DataFrame(
                {"decision_id": [f"d-{n}" for n in self.dropped], "delivery_id": list(self.dropped)},
                schema={"decision_id": pl.String, "delivery_id": pl.String},
            ),
            "alerts": pl.DataFrame(
                {"subject": ["a"], "agreed_until": [at(9)], "action_cost": [4.0], "decision_id": ["w1"]},
                schema_overrides={"agreed_until": STAMP},
            ).head(int(self.warned)),
        }
        legs = pl.DataFrame(
            {
                "delivery_id": ["a", "b"], "vehicle_id": [self.vehicle] * 2, "departed_at": [at(7)] * 2, "stop": [1, 2],
                "leg_started_at": [at(7), at(9.2)], "arrived_at": [at(9.1), at(9.5)], "left_at": [at(9.2), at(9.6)],
                "due_at": [at(8), at(10)], "agreed_until": self.agreed, "quantity": [1.0, 3.0], "km": self.km,
                "drive_minutes": [126.0, 18.0],
            },
            schema_overrides=dict.fromkeys(
                ("departed_at", "leg_started_at", "arrived_at", "left_at", "due_at", "agreed_until"), STAMP
            ),
        )  # fmt: skip
        vehicles = pl.DataFrame(
            {"vehicle_id": ["v"], "fixed_cost": [20.0], "cost_per_km": [1.0], "cost_per_hour": [0.0]}
        )
        deliveries = pl.DataFrame(
            {
                "delivery_id": ["a", "b", "c", "must"],
                "depot_id": ["W"] * 4,
                "late_cost_per_minute": [0.5] * 4,
                "drop_cost": [90.0, 80.0, 70.0, None],
            }
        )
        deliveries = deliveries.filter(~pl.col("delivery_id").is_in(self.others))
        return plan, legs.head(self.driven), vehicles, deliveries


def landed(home: Home, day: Day) -> None:
    """Writes what `day` knows to a home; the ledger of the day is opened if there is none."""
    plan, legs, vehicles, deliveries = day.frames()
    deliveries = deliveries.with_columns(ready_at=pl.lit(at(7)).cast(STAMP))
    for name, frame in (("legs", legs), ("vehicles", vehicles), ("deliveries", deliveries)):
        write_parquet(frame, home.mart("logistics", name))
    folder = plan_folder(home, OPENED.date())
    for name in FRAMES:
        write_parquet(plan.get(name, pl.DataFrame({"none": [0]})), folder / f"{name}.parquet")
    write_json({"inputs": ""}, folder / "plan.json")
    if not home.decisions("all", "ledger", OPENED.date()).exists():
        ids = [*plan["routes"]["decision_id"], *plan["dropped"]["decision_id"], *plan["alerts"]["decision_id"]]
        rows = pl.DataFrame({"decision_id": ids}).with_columns(
            pl.lit("logistics").alias("domain"),
            pl.when(pl.col("decision_id").str.starts_with("w")).then(pl.lit("alerts")).otherwise(pl.lit("routes")).alias("kind"),
            pl.lit(OPENED.date()).alias("decided_at"),
        )  # fmt: skip
        write_parquet(
            pl.concat([LEDGER.empty(), rows], how="diagonal_relaxed"), home.decisions("all", "ledger", OPENED.date())
        )


def booked(home: Home) -> dict[str, float | None]:
    ledger = pl.read_parquet(home.decisions("all", "ledger", OPENED.date()), hive_partitioning=False)
    return dict(ledger.select("decision_id", "realized_cost").iter_rows())


def test_a_warning_is_settled_by_the_lateness_that_it_spared() -> None:
    found = Day().settle()
    # 20 for the vehicle and 10 km home are shared by load; 66 minutes after the window cost 33.
    assert found["r1"]["realized_cost"] == pytest.approx(10 + 0.25 * 30 + 33)
    assert found["r2"]["realized_cost"] == pytest.approx(5 + 0.75 * 30)
    # Six minutes after the time agreed on cost 3 instead of 33; agreeing cost 4.
    assert found["w1"]["realized_cost"] == pytest.approx(4 - 30) and found["w1"]["naive_realized_cost"] == 0.0
    assert found["r1"]["naive_realized_cost"] is None


def test_a_warning_that_nobody_acted_on_spared_nothing() -> None:
    found = Day(agreed=[None, None]).settle()
    assert found["w1"]["realized_cost"] == 0.0
    assert found["r1"]["realized_cost"] == pytest.approx(10 + 0.25 * 30 + 33)


def test_a_time_agreed_on_without_a_warning_is_the_deliverys_own() -> None:
    assert Day(warned=False).settle()["r1"]["realized_cost"] == pytest.approx(10 + 0.25 * 30 + 3)


def test_missing_km_are_those_planned_and_not_none() -> None:
    found = Day(km=[None, 5.0]).settle()
    assert found["r1"]["realized_cost"] == pytest.approx(11 + 0.25 * 31 + 33)
    assert found["r2"]["realized_cost"] == pytest.approx(5 + 0.75 * 31)


def test_a_vehicle_costs_its_day_once_however_many_tours_it_drives() -> None:
    plan, legs, vehicles, deliveries = Day(agreed=[None, None]).frames()
    second = pl.col("delivery_id") == "b"
    twice = legs.with_columns(
        pl.when(second).then(pl.col("departed_at") + timedelta(hours=2)).otherwise("departed_at").alias("departed_at"),
        pl.lit(1, legs.schema["stop"]).alias("stop"),
    )
    costs = [
        float(realized(plan, twice, vehicles.with_columns(fixed_cost=pl.lit(f)), deliveries)["realized_cost"].sum())
        for f in (0.0, 20.0)
    ]
    assert costs[1] - costs[0] == pytest.approx(20.0)


def test_a_vehicle_without_terms_leaves_the_account_open() -> None:
    found = Day(vehicle="hired").settle(over=True)
    assert set(found) == {"w1"}


def test_what_no_trip_brought_costs_its_drop_once_the_day_is_over() -> None:
    day = Day(driven=1, dropped=("c", "must"))
    assert set(day.settle()) == {"r1", "w1"}
    found = day.settle(over=True)
    assert found["r2"]["realized_cost"] == 80.0 and found["d-c"]["realized_cost"] == 70.0
    # What it costs not to do what must be done is not known.
    assert "d-must" not in found


def test_a_depot_that_lands_no_trips_is_not_taken_to_have_driven_none() -> None:
    assert Day(driven=0, dropped=("c",)).settle(over=True) == {}


def test_a_warned_delivery_that_was_never_made_spared_nothing() -> None:
    day = Day(driven=2, dropped=("c",))
    day.agreed = [None, None]
    assert day.settle(over=True)["w1"]["realized_cost"] == 0.0


def test_a_tour_over_midnight_is_shared_by_the_stops_of_both_days() -> None:
    # The second stop belongs to the next day's plan: the first pays its quarter of vehicle and way home all the same.
    found = Day(others=("b",)).settle()
    assert found["r1"]["realized_cost"] == pytest.approx(10 + 0.25 * 30 + 33) and "r2" not in found


def test_a_trip_that_lands_after_the_day_was_over_is_booked_after_all(tmp_path: Path) -> None:
    home, upto = Home.at(tmp_path), OPENED.date()
    # The second stop's row is delayed: its tour mate pays the whole vehicle, and it is taken for not made.
    landed(home, Day(driven=1, dropped=("c",)))
    assert settle_accounts(home, upto + timedelta(days=3)) == {upto: 4}
    before = booked(home)
    assert before["r2"] == 80.0 and before["d-c"] == 70.0 and before["r1"] == pytest.approx(10 + 30 + 33)
    assert settle_accounts(home, upto + timedelta(days=4)) == {}
    landed(home, Day(dropped=("c",)))
    assert settle_accounts(home, upto + timedelta(days=20)) == {upto: 2}
    assert booked(home) == pytest.approx(before | {"r1": 10 + 0.25 * 30 + 33, "r2": 5 + 0.75 * 30})
    assert settle_accounts(home, upto + timedelta(days=21)) == {}
    # Nobody looks back for longer.
    landed(home, Day(driven=1, dropped=("c",)))
    assert settle_accounts(home, upto + timedelta(days=40)) == {}


def test_a_stop_of_the_next_day_takes_its_share_of_the_tour_when_it_lands(tmp_path: Path) -> None:
    home, upto = Home.at(tmp_path), OPENED.date()
    alone, shared = 10 + 30 + 33, 10 + 0.25 * 30 + 33
    # At midnight the second stop, which belongs to the next day, has not been made: the first pays the whole vehicle.
    landed(home, Day(driven=1, others=("b",)))
    settle_accounts(home, upto + timedelta(days=1))
    assert booked(home)["r1"] == pytest.approx(alone)
    landed(home, Day(others=("b",)))
    assert settle_accounts(home, upto + timedelta(days=2)) == {upto: 1}
    settled = booked(home)
    assert settled["r1"] == pytest.approx(shared) and settled["w1"] == pytest.approx(4 - 30)
    # A day that is run again and knows less changes nothing; nor does the same once more.
    landed(home, Day(driven=1, others=("b",)))
    assert settle_accounts(home, upto + timedelta(days=1)) == {}
    landed(home, Day(others=("b",)))
    assert settle_accounts(home, upto + timedelta(days=3)) == {}
    assert booked(home) == settled


@pytest.mark.parametrize("drop_cost", [90.0, None])
def test_the_warning_of_a_late_trip_is_booked_with_it(tmp_path: Path, drop_cost: float | None) -> None:
    home, upto = Home.at(tmp_path), OPENED.date()

    def land(driven: list[str]) -> None:
        landed(home, Day())
        for name, keep in (("legs", pl.col("delivery_id").is_in(driven)), ("deliveries", pl.lit(True))):
            place = home.mart("logistics", name)
            frame = pl.read_parquet(place).filter(keep)
            if name == "deliveries":
                frame = frame.with_columns(
                    pl.when(pl.col("delivery_id") == "a").then(drop_cost).otherwise("drop_cost").alias("drop_cost")
                )
            write_parquet(frame, place)

    land(["b"])
    settle_accounts(home, upto + timedelta(days=3))
    assert booked(home)["r1"] == drop_cost and booked(home)["w1"] == 0.0
    land(["a", "b"])
    assert settle_accounts(home, upto + timedelta(days=9)) == {upto: 3}
    assert booked(home)["r1"] == pytest.approx(10 + 0.25 * 30 + 33) and booked(home)["w1"] == pytest.approx(4 - 30)
    assert settle_accounts(home, upto + timedelta(days=9)) == {}
