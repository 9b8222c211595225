"""What a value may look like, and what is said when it does not: read from files as they land."""

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from npq_assets.contracts import LANDING
from npq_assets.ingestion import ingest
from npq_assets.ingestion.report import balance_table
from npq_assets.settings import Home

HEADER = "sold_on,site_id,product_id,quantity,price,promotion\n"


def land(home: Home, table: str, name: str, content: str | bytes, *, mtime: int | None = None) -> Path:
    import os

    place = home.landing / table.replace(".", "/") / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content.encode() if isinstance(content, str) else content)
    if mtime is not None:
        os.utime(place, (mtime, mtime))
    return place


def raw(home: Home, table: str) -> pl.DataFrame:
    return pl.read_parquet(home.root / "raw" / f"{table.replace('.', '/')}.parquet")


def quarantine(home: Home, table: str) -> pl.DataFrame:
    files = sorted((home.quarantine / table.replace(".", "/")).glob("*.csv"))
    return pl.concat([pl.read_csv(f, infer_schema=False) for f in files]) if files else pl.DataFrame()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path)


SALES = LANDING["retail.sales"]


def take(home: Home, table: str = "retail.sales"):  # type: ignore[no-untyped-def]
    balance = ingest(home, [LANDING[table]])[table]
    assert balance.holds
    return balance


ROWS = "2024-04-01,s1,p1,3,1.5,1\n2024-04-02,s1,p1,0,,\n"


@pytest.mark.parametrize(
    "content",
    [
        HEADER + ROWS,
        "\ufeff" + HEADER + ROWS,
        (HEADER + ROWS).replace("\n", "\r\n"),
        (HEADER + ROWS).replace("\n", "\r"),
        (HEADER + ROWS).replace(",", "\t"),
        (HEADER + ROWS).replace(",", ";"),
        ("sold_on;site_id;product_id;quantity;price;promotion\n2024-04-01;s1;p1;3;1,5;是\n2024-04-02;s1;p1;0,0;;\n"),
        HEADER.upper() + ROWS,
        HEADER + ROWS + "\n\n",
        HEADER + ROWS.replace("\n", ",,,\n"),
        HEADER + '"2024-04-01","s1","p1","3","1.5","yes"\n2024/4/2,s1 , p1,0.0,,\n',
        "price,promotion,quantity,product_id,site_id,sold_on\n1.5,true,3,p1,s1,2024-04-01 00:00:00\n,,0,p1,s1,2024-04-02\n",
    ],
)
def test_one_content_in_many_spellings(home: Home, content: str) -> None:
    land(home, "retail.sales", "a.csv", content)
    balance = take(home)
    assert (balance.landed, balance.accepted) == (2, 2)
    rows = raw(home, "retail.sales").sort("sold_on")
    assert rows.drop("source_line", "source_file", "promotion").rows() == [
        (date(2024, 4, 1), "s1", "p1", 3.0, 1.5),
        (date(2024, 4, 2), "s1", "p1", 0.0, None),
    ]
    assert rows["promotion"].to_list() == [True, None]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("zipped", [False, True])
def test_chinese_names_in_any_encoding(home: Home, encoding: str, zipped: bool) -> None:
    content = "product_id,name,family,unit_cost\n0012,高山绿茶,茶叶,12.5\n".encode(encoding)
    land(
        home, "common.products", "产品.csv.gz" if zipped else "产品.csv", gzip.compress(content) if zipped else content
    )
    assert take(home, "common.products").accepted == 1
    row = raw(home, "common.products").row(0, named=True)
    assert (row["product_id"], row["name"], row["family"]) == ("0012", "高山绿茶", "茶叶")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2024-04-01,s1,p1,many,,", "quantity 'many' is not a number"),
        ('2024-04-01,s1,p1,"1,200",,', "quantity '1,200' is not a number"),
        ("2024-04-01,s1,p1,nan,,", "quantity 'nan' is not a number"),
        ("2024-04-01,s1,p1,-1,,", "quantity -1 is below 0"),
        ("2024-04-01,s1,p1,1e12,,", "quantity 1e12 is above 1e+09"),
        ("01/04/2024,s1,p1,1,,", "sold_on '01/04/2024' is not a date; write YYYY-MM-DD"),
        ("2024-02-30,s1,p1,1,,", "is not a date"),
        ("2024-04-01,,p1,1,,", "site_id is empty"),
        ("2024-04-01,s1,p1,1,,maybe", "promotion 'maybe' is not 1/0"),
        ("2024-04-01,s1,p1", "has 3 fields where the header has 6"),
        ("2024-04-01,s1,p1,1,,,,more", "has 8 fields where the header has 6"),
        ("2024-04-01,s1,p\0,1,,", "NUL"),
        ("=cmd(),s1,p1,1,,", "is not a date"),
        (f"2024-04-01,{'x' * 5000},p1,1,,", "longer than 4000"),
    ],
)
def test_a_broken_row_is_quarantined_with_its_line(home: Home, row: str, reason: str) -> None:
    land(home, "retail.sales", "a.csv", HEADER + "2024-04-01,s9,p9,1,,\n" + row + "\n")
    balance = take(home)
    assert (balance.landed, balance.accepted, balance.quarantined) == (2, 1, 1)
    [found] = quarantine(home, "retail.sales").to_dicts()
    assert found["file"] == "retail/sales/a.csv"
    assert found["line"] == "3"
    assert reason in found["reason"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-04-01T10:30:00Z", datetime(2024, 4, 1, 10, 30)),
        ("2024-04-01 10:30", datetime(2024, 4, 1, 10, 30)),
        ("2024-04-01T10:30:00.250+08:00", datetime(2024, 4, 1, 2, 30, 0, 250000)),
        ("2024-04-01T10:30:00-0530", datetime(2024, 4, 1, 16, 0)),
        ("2024/4/1 9:05:07", datetime(2024, 4, 1, 9, 5, 7)),
        ("2024-04-01", datetime(2024, 4, 1)),
    ],
)
def test_timestamps_are_kept_in_utc(home: Home, text: str, moment: datetime) -> None:
    land(home, "manufacturing.machine_errors", "a.csv", f"occurred_at,machine_id,error_code\n{text},m,e\n")
    assert take(home, "manufacturing.machine_errors").accepted == 1
    assert raw(home, "manufacturing.machine_errors")["occurred_at"][0] == moment.replace(tzinfo=UTC)


def test_parquet_with_its_own_types(home: Home) -> None:
    frame = pl.DataFrame(
        {
            "site_id": [1, 2],
            "product_id": [7.0, 8.0],
            "sold_on": [datetime(2024, 4, 1), datetime(2024, 4, 2)],
            "quantity": [0.1, 3.0],
            "promotion": [True, None],
        }
    )
    place = home.landing / "retail/sales/a.parquet"
    place.parent.mkdir(parents=True)
    frame.write_parquet(place)
    assert take(home).accepted == 2
    assert raw(home, "retail.sales").drop("source_file").rows() == [
        (date(2024, 4, 1), "1", "7", 0.1, None, True, 1),
        (date(2024, 4, 2), "2", "8", 3.0, None, None, 2),
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"   \n\n", "is empty"),
        ("a.csv", b"sold_on,site_id,quantity\n2024-04-01,s,1\n", "has no column product_id"),
        ("a.csv", b"sold_on,site_id,product_id,quantity,quantity\n", "has the column quantity twice"),
        ("a.csv", b"\xff\xff\xff\x00\x81", ""),
        ("a.csv.gz", gzip.compress(HEADER.encode() * 400)[:-20], "ended before the end"),
        ("a.csv.gz", b"no gzip at all", "cannot be read"),
        ("a.parquet", b"PAR1 no parquet", "is not a readable Parquet file"),
    ],
)
def test_an_unreadable_file_is_quarantined_whole(home: Home, name: str, content: bytes, reason: str) -> None:
    land(home, "retail.sales", name, content)
    land(home, "retail.sales", "good.csv", HEADER + ROWS)
    balance = take(home)
    assert (balance.unreadable_files, balance.accepted) == (1, 2)
    notes = quarantine(home, "retail.sales")
    assert reason in notes["reason"][0]
    assert [f.read_bytes() for f in (home.quarantine / "retail/sales/files").iterdir()] == [content]


def test_a_quote_never_closed_costs_its_own_line_only(home: Home) -> None:
    rows = "".join(f"2024-04-{day:02d},s1,p1,1,,\n" for day in range(2, 30))
    land(home, "retail.sales", "a.csv", HEADER + '2024-04-01,"s1,p1,3,1.5,1\n' + rows)
    balance = take(home)
    assert (balance.landed, balance.accepted, balance.quarantined) == (29, 28, 1)


def test_further_columns_are_kept_where_the_contract_keeps_them(home: Home) -> None:
    land(home, "retail.customers", "a.csv", "customer_id,city,joined_on\nc1,上海,2024-01-01\n")
    take(home, "retail.customers")
    assert raw(home, "retail.customers")["city"].to_list() == ["上海"]


def test_tables_without_files_have_an_empty_raw_table(home: Home) -> None:
    balances = ingest(home)
    assert set(balances) == set(LANDING)
    assert raw(home, "logistics.trips").is_empty()
    assert set(SALES.schema) < set(raw(home, "retail.sales").columns)


def test_what_ends_before_it_begins_is_no_offer_and_no_request(home: Home) -> None:
    rows = "offer_id,family,discount,cost_per_use,starts_on,ends_on\nA,x,.1,0,2024-04-01,2024-04-01\nB,x,.1,0,2024-04-07,2024-04-01"
    land(home, "retail.offers", "a.csv", rows)
    balance = take(home, "retail.offers")
    assert balance.accepted == 1 and balance.reasons == {"ends_on is before starts_on": 1}
    [reason] = quarantine(home, "retail.offers")["reason"]
    assert reason == "ends_on 2024-04-01 is before starts_on 2024-04-07; correct one of them"
    opened = "2024-04-02T08:00:00Z"
    rows = "\n".join(
        [
            "request_id,customer_id,opened_at,topic,closed_at,first_response_at",
            f"1,C1,{opened},refund,,",
            f"2,C1,{opened},refund,{opened},{opened}",
            f"3,C1,{opened},refund,2024-04-01,",
            f"4,C1,{opened},refund,,2024-04-02T07:59:59Z",
        ]
    )
    land(home, "retail.service_requests", "a.csv", rows)
    assert take(home, "retail.service_requests").accepted == 2
    reasons = quarantine(home, "retail.service_requests")["reason"].to_list()
    assert reasons[0].startswith("closed_at 2024-04-01 00:00:00") and "first_response_at" in reasons[1]


def test_of_contradicting_rows_a_consent_taken_back_counts(home: Home) -> None:
    pairs = "C1,1\nC1,0\nC2,0\nC2,1\nC3,1\nC3,\nC4,1\nC4,1\n"
    land(home, "retail.customers", "a.csv", "customer_id,marketing_consent\n" + pairs)
    take(home, "retail.customers")
    found = dict(raw(home, "retail.customers").select("customer_id", "marketing_consent").iter_rows())
    assert found == {"C1": False, "C2": False, "C3": None, "C4": True}
    assert quarantine(home, "retail.customers")["reason"].to_list()[0].startswith("the same key as line 3, with other")


def test_a_consent_that_cannot_be_read_ends_an_older_yes_and_is_named(home: Home) -> None:
    head = "customer_id,marketing_consent,joined_on\n"
    land(home, "retail.customers", "a.csv", f"{head}C1,yes,\nC2,yes,\nC3,yes,\n", mtime=1_700_000_000)
    take(home, "retail.customers")
    newer = f"{head}C1,maybe,\nC2,,\nC3,{'y' * 5000},\nC4,maybe,soon\n"
    land(home, "retail.customers", "b.csv", newer, mtime=1_700_000_100)
    said: list[str] = []
    balance = ingest(home, [LANDING["retail.customers"]], said.append)["retail.customers"]
    assert balance.holds and (balance.accepted, balance.superseded, balance.quarantined) == (3, 3, 1)
    found = dict(raw(home, "retail.customers").select("customer_id", "marketing_consent").iter_rows())
    assert found == {"C1": False, "C2": None, "C3": False}
    lines = [remark.split(":")[0] for remark in balance.remarks]
    assert lines == [f"retail/customers/b.csv line {n}" for n in (2, 4)]  # line 5 is quarantined for its day of joining
    assert list(balance.remarks) == said and "maybe" not in "".join(said)
    assert "b.csv line 2: marketing_consent" in balance_table({"retail.customers": balance})
    # Nothing new lands: what was found stays in sight, and a readable row puts it right.
    assert take(home, "retail.customers").remarks == balance.remarks
    land(home, "retail.customers", "c.csv", f"{head}C1,yes,\n", mtime=1_700_000_200)
    take(home, "retail.customers")
    assert raw(home, "retail.customers").filter(pl.col("customer_id") == "C1")["marketing_consent"].to_list() == [True]


def test_windows_trips_and_closures_that_end_before_they_begin_are_rejected(home: Home) -> None:
    early, late = "2024-04-02T08:00:00Z", "2024-04-02T09:00:00Z"
    head = "delivery_id,depot_id,latitude,longitude,quantity,ready_at,due_at,service_minutes"
    deliveries = [f"{k},W1,52,13,1,{ready},{due},5" for k, (ready, due) in enumerate([(early, early), (late, early)])]
    land(home, "logistics.deliveries", "a.csv", "\n".join([head, *deliveries]))
    assert take(home, "logistics.deliveries").reasons == {"due_at is before ready_at": 1}
    trips = [f"0,V1,{early},{late},{late}", f"0,V1,{late},{late},{early}"]
    land(
        home,
        "logistics.trips",
        "a.csv",
        "\n".join(["delivery_id,vehicle_id,departed_at,promised_at,arrived_at", *trips]),
    )
    assert take(home, "logistics.trips").reasons == {"arrived_at is before departed_at": 1}
    closures = [f"A,B,{early},", f"B,A,{late},{early}"]
    land(home, "logistics.road_closures", "a.csv", "\n".join(["from_node,to_node,closed_from,closed_until", *closures]))
    assert take(home, "logistics.road_closures").reasons == {"closed_until is before closed_from": 1}
    [reason] = quarantine(home, "logistics.deliveries")["reason"]
    assert reason.startswith("due_at 2024-04-02 08:00:00") and reason.endswith("; correct one of them")
