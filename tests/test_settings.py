"""A home works without npq.toml, and a wrong one is refused in one line that names the setting."""

from pathlib import Path

import pytest

from npq_assets.errors import NpqError
from npq_assets.settings import Home, Settings


def test_a_home_without_settings_has_defaults(tmp_path: Path) -> None:
    assert Home.at(tmp_path).settings == Settings()


def test_the_environment_names_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPQ_HOME", str(tmp_path / "there"))
    assert Home.at().root == (tmp_path / "there").resolve()


def test_settings_are_read(tmp_path: Path) -> None:
    (tmp_path / "npq.toml").write_text('period = "week"\nscenarios = 50\nservice_shifts = ["08-16", "22-06"]\n')
    assert Home.at(tmp_path).settings == Settings(period="week", scenarios=50, service_shifts=("08-16", "22-06"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('period = "month"', "day"),
        ("scenarios = -1", "above 0"),
        ('scenarios = "many"', "wrong type"),
        ("scenarios = true", "wrong type"),
        ('service_shifts = ["8-16"]', "expected hours such as"),
        ('service_shifts = ["08-08"]', "expected hours such as"),
        ('service_shifts = ["08-25"]', "expected hours such as"),
        ('service_shifts = ["08-16", "08-16"]', "expected hours such as"),
        ("service_shifts = [8]", "expected hours such as"),
        ("service_shifts = []", "expected hours such as"),
        ("service_most = 0", "above 0"),
        ("colour = 1", "unknown setting 'colour'"),
        ("period = ", "cannot be read as TOML"),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "npq.toml").write_text(content)
    with pytest.raises(NpqError, match=words):
        Home.at(tmp_path)
