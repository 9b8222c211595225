"""The page in a real browser: search, sort, filter and paging work, nothing is fetched and nothing is logged as an error."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from npq_assets.reporting.report import build_report
from tests.reporting.test_report import data

CHROME, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROME and DRIVER), reason="needs chromium and chromedriver, from Debian's packages"),
]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,900",
]  # fmt: skip


class Browser:
    """As much of the WebDriver protocol as these tests need."""

    def __init__(self, port: int, profile: Path) -> None:
        self._base = f"http://127.0.0.1:{port}"
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": CHROME, "args": [*FLAGS, f"--user-data-dir={profile}"]},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = self._post("/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._base += f"/session/{session['sessionId']}"

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._base + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def open(self, url: str) -> None:
        self._post("/url", {"url": url})

    def run(self, script: str) -> Any:
        return self._post("/execute/sync", {"script": script, "args": []})

    def log(self) -> list[dict[str, Any]]:
        return list(self._post("/se/log", {"type": "browser"}))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert DRIVER
    process = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        browser = Browser(port, tmp_path_factory.mktemp("profile"))
        page = tmp_path_factory.mktemp("page") / "report.html"
        page.write_text(build_report(data()), encoding="utf-8")
        browser.open(page.as_uri())
        yield browser
    finally:
        process.terminate()


ROWS = "return [...document.querySelectorAll('#decisions tbody tr')].map(r => r.dataset.id)"


def find(browser: Browser, words: str) -> list[str]:
    browser.run(
        f"const s = document.getElementById('search'); s.value = {json.dumps(words)}; s.dispatchEvent(new Event('input'));"
    )
    return list(browser.run(ROWS))


def test_the_most_at_stake_comes_first_by_pages(browser: Browser) -> None:
    rows = find(browser, "")
    assert len(rows) == 25 and rows[0] == "id059"
    browser.run("document.getElementById('next').click()")
    assert browser.run(ROWS)[0] == "id034"
    assert browser.run("return document.getElementById('page').textContent") == "26–50 of 60"
    browser.run("document.getElementById('previous').click()")


def test_search_finds_ids_words_and_chinese(browser: Browser) -> None:
    assert find(browser, "id007") == ["id007"]
    assert len(find(browser, "茶叶")) == 25
    assert find(browser, "order 12 product") == ["id012"]
    assert find(browser, "nowhere") == []
    assert browser.run("return document.getElementById('page').textContent") == "nothing found"
    find(browser, "")


def test_columns_sort_both_ways_and_say_so(browser: Browser) -> None:
    click = "document.querySelectorAll('#decisions thead button')[3].click();"
    browser.run(click)
    assert browser.run(ROWS)[0] == "id000"
    assert browser.run("return document.querySelectorAll('#decisions th')[3].getAttribute('aria-sort')") == "ascending"
    browser.run(click)
    assert browser.run(ROWS)[0] == "id059"


def test_nothing_is_executed_fetched_or_complained_about(browser: Browser) -> None:
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.run("return document.querySelectorAll('script').length") == 2
    assert [entry for entry in browser.log() if entry["level"] == "SEVERE"] == []


def test_the_pictures_are_drawn(browser: Browser) -> None:
    box = browser.run("const b = document.querySelector('svg.fan').getBoundingClientRect(); return [b.width, b.height]")
    assert min(box) > 50
