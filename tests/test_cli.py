"""The command as people use it: what it prints, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from npq_assets.settings import Home
from tests.ingestion.test_rules import HEADER, land


def npq(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "npq_assets.cli", *words], capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stderr
    return done


def test_validate_prints_the_balance_and_imports_nothing_heavy(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    land(home, "retail.sales", "a.csv", HEADER + "2024-04-01,s,p,1,,\n2024-04-01,s,q,-1,,\n")
    found = json.loads(npq("validate", "--home", str(tmp_path), "--json").stdout)
    assert found["retail.sales"]["landed"] == 2
    assert found["retail.sales"]["accepted"] == 1
    assert found["retail.sales"]["reasons"] == {"quantity is below 0": 1}
    assert {"files", "superseded", "quarantined", "unreadable_files"} <= set(found["retail.sales"])
    text = npq("validate", "--home", str(tmp_path)).stdout
    assert "retail.sales" in text and "1 x quantity is below 0" in text
    check = (
        "import sys; from npq_assets.ingestion import validate; from npq_assets.settings import Home; "
        f"validate(Home.at({str(tmp_path)!r})); "
        "assert not {'dagster', 'dbt', 'lightgbm', 'cvxpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_sample_writes_landing_files(tmp_path: Path) -> None:
    said = npq("sample", "--out", str(tmp_path / "out"), "--scale", "0.05", "--days", "40", "--seed", "3").stdout
    assert "decide as of" in said
    assert list((tmp_path / "out/retail/sales").glob("*.csv*"))
    assert list((tmp_path / "out/logistics/vehicles").glob("*.csv*"))


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("run", "--home", "{home}"), 2, "no such folder; land files as"),
        (("run", "--home", "{home}", "--domain", "banking"), 2, "--domain 'banking' is unknown"),
        (("run", "--home", "{home}", "--as-of", "15.4.2024"), 2, "is not a date; write YYYY-MM-DD"),
        (("explain", "x", "--home", "{home}"), 2, "no decision 'x'"),
        (("forget", "--home", "{home}"), 2, "give a customer id"),
        (("forget", "C1", "--again", "--home", "{home}"), 2, "or --again alone"),
        (("forget", "C1", "--readmit", "--home", "{home}"), 2, "nobody of this id was forgotten"),
    ],
)
def test_mistakes_are_one_line_on_stderr(tmp_path: Path, words: tuple[str, ...], code: int, complaint: str) -> None:
    done = npq(*[word.format(home=tmp_path / "none") for word in words], code=code)
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_sales_without_terms_say_what_to_land(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    land(home, "retail.sales", "a.csv", HEADER + "2024-04-01,s,p,1,,\n2024-04-02,s,p,1,,\n")
    done = npq("run", "--home", str(tmp_path), "--domain", "retail")
    page = next((tmp_path / "reports").rglob("report.html")).read_text(encoding="utf-8")
    assert "No decisions" in done.stdout
    assert "retail.supply_terms: no rows accepted" in page
