"""The report's page in a real browser: it loads, filters, hovers, takes keys, fits, escapes.

Needs chromium and chromedriver (Debian: `apt-get install chromium chromium-driver`). Without them
these tests are skipped, unless DISTIL_BROWSER=required says that they must be there.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from distil.report import report
from distil.runs.folder import read_lines
from reportruns import NASTY, make_run, make_tokens, write_lines

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
Driver = webdriver.Chrome


def found(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    browser, service = found(BROWSERS), found(("chromedriver",))
    if browser is None or service is None:
        assert os.environ.get("DISTIL_BROWSER") != "required", "chromium or chromedriver is missing"
        pytest.skip("chromium and chromedriver aren't installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(service))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs; in the first one, one rollout has the largest cost, another the largest credit."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [make_run(folder / "first"), make_run(folder / "second", seed=1)]
    records = list(read_lines(runs[0] / "rollouts.jsonl"))
    records[0]["tokens"]["cost"][2] = 77.0
    records[5]["tokens"]["credit"][1] = -66.0
    records[8] |= {
        "completion": NASTY,
        "prompt": NASTY,
        "teacher_prompt": [{"role": NASTY, "content": NASTY}],
        "feedback": [{"source": NASTY, "text": NASTY, "demonstration": NASTY}],
        "tokens": make_tokens([NASTY, "\n", "\t"]),
        "problem": "sum-x <b>",
    }
    write_lines(runs[0] / "rollouts.jsonl", records)
    return runs


Opener = Callable[..., Driver]


@pytest.fixture
def opened(driver: Driver, folders: list[Path], tmp_path: Path) -> Iterator[Opener]:
    """Opens the report of the first `runs` of the folders; nothing may have been complained of."""

    def open_page(runs: int = 1, part: str = "learning", width: int = 1400) -> Driver:
        page = report(folders[:runs], tmp_path / "report.html")
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 800}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(f"about:blank#{part}")
        driver.get(f"{page.as_uri()}#{part}")
        wait(driver, "return document.body.dataset.ready === 'true'")
        return driver

    driver.get_log("browser")
    yield open_page
    assert [entry["message"] for entry in driver.get_log("browser")] == []
    assert driver.execute_script("return window.broken") is None


def wait(driver: Driver, script: str) -> None:
    WebDriverWait(driver, 20, poll_frequency=0.05).until(lambda d: d.execute_script(script))


def texts(driver: Driver, css: str) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((n) => n.textContent)", css
    )


def click(driver: Driver, css: str) -> None:
    driver.find_element(By.CSS_SELECTOR, css).click()


def press(driver: Driver, *keys: str) -> None:
    ActionChains(driver).send_keys(*keys).perform()


def headline(driver: Driver) -> str:
    return "".join(texts(driver, ".headline"))


def rows_left(driver: Driver) -> int:
    return int(driver.find_element(By.CSS_SELECTOR, ".table").get_attribute("data-rows") or -1)


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("part", ["learning", "credit", "course", "settings"])
def test_every_part_is_drawn_and_fits(opened: Opener, part: str, width: int) -> None:
    driver = opened(2, part, width)
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert len(texts(driver, f"#part-{part} h2")) >= (0 if part == "credit" else 2)
    sizes = driver.execute_script(
        "return [...document.querySelectorAll(`#part-${arguments[0]} canvas`)]"
        ".map((c) => [c.clientWidth, c.clientHeight, Chart.getChart(c) !== undefined])",
        part,
    )
    assert len(sizes) == {"learning": 7, "credit": 0, "course": 2, "settings": 0}[part]
    assert all(w > 100 and h > 100 and made for w, h, made in sizes)


def test_curves_have_the_runs_numbers_and_bands(opened: Opener) -> None:
    driver = opened(1)
    data = driver.execute_script(
        "return Chart.getChart(document.querySelector('canvas')).data.datasets"
        ".map((d) => [d.label, d.data.map((p) => [p.x, p.y])])"
    )
    assert [label for label, _ in data] == ["", "", "first"]
    assert [x for x, _ in data[2][1]] == [1, 2, 3, 4, 5, 6]
    assert {y for _, y in data[2][1]} == {0.5}
    driver.execute_script(
        "const s = document.querySelector('#part-learning select'); s.value = 'seconds';"
        "s.dispatchEvent(new Event('change'))"
    )
    along = driver.execute_script(
        "return Chart.getChart(document.querySelector('canvas')).data.datasets[2]"
        ".data.map((p) => p.x)"
    )
    assert along == [2, 4, 6, 8, 10, 12]


def test_filters_leave_what_they_say(opened: Opener) -> None:
    driver = opened(2, "credit")
    choose = (
        "const s = [...document.querySelectorAll('.toolbar label')]"
        ".find((l) => l.textContent.startsWith(arguments[0])).querySelector('select');"
        "s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    )
    driver.execute_script(choose, "Run", "0")
    assert rows_left(driver) == 48
    driver.execute_script(choose, "Verdict", "wrong")
    assert rows_left(driver) == 24
    driver.execute_script(choose, "Feedback", "report")
    assert rows_left(driver) == 12
    click(driver, ".toolbar input[type=checkbox]")
    assert rows_left(driver) == 6
    search = driver.find_element(By.CSS_SELECTOR, ".toolbar input[type=search]")
    search.send_keys("SUM-X")
    assert rows_left(driver) == 1
    assert texts(driver, ".tabulator-row")[0].count("sum-x <b>") == 1


def test_the_most_striking_rollouts_are_found_with_their_token(opened: Opener) -> None:
    driver = opened(1, "credit")
    click(driver, "[data-ranking=peak]")
    wait(driver, "return document.querySelector('.token-panel') !== null")
    assert "step 1," in headline(driver)
    assert texts(driver, ".token.current") == [" 3"]
    assert "77 nats" in texts(driver, ".token-panel")[0]
    click(driver, "[data-ranking=size]")
    wait(driver, "return document.querySelector('.token-panel').textContent.includes('-66')")
    assert texts(driver, ".token.current") == [" is"]
    assert "pushed up" in texts(driver, ".token-panel")[0]
    click(driver, "[data-ranking=doubt]")
    wait(driver, "return !document.querySelector('.token-panel').textContent.includes('-66')")
    assert driver.find_element(By.CSS_SELECTOR, "[data-ranking=doubt]").get_attribute(
        "aria-pressed"
    ) == ("true")


def test_hovering_shows_what_both_sides_would_have_said(opened: Opener) -> None:
    driver = opened(1, "credit/0/0")
    tokens = driver.find_elements(By.CSS_SELECTOR, ".tokens .token")
    assert [t.text.strip() for t in tokens[:4]] == ["It", "is", "3", "<|end|>"]
    ActionChains(driver).move_to_element(tokens[1]).perform()
    assert texts(driver, ".token.current") == [" is"]
    assert texts(driver, ".choices.student th") == [" is", " other"]
    assert texts(driver, ".choices.teacher th") == [" rather", " is"]
    assert texts(driver, ".choices.teacher .chance") == ["70%", "20%"]
    fills = driver.execute_script(
        "return [...document.querySelectorAll('.tokens .token')].map((t) =>"
        "[parseFloat(t.style.getPropertyValue('--fill')),"
        " t.style.getPropertyValue('--below') || t.style.getPropertyValue('--above')])"
    )
    assert all(0 <= fill <= 85 for fill, _ in fills)
    assert len({fill for fill, _ in fills}) > 2
    beside = "".join(texts(driver, ".columns"))
    assert "That is wrong." in beside
    assert "What the teacher was shown" in beside
    assert "Not that." in beside


def test_keys_go_everywhere(opened: Opener) -> None:
    driver = opened(1, "learning")
    press(driver, "2")
    wait(driver, "return document.querySelectorAll('.tabulator-row').length > 5")
    press(driver, "j")
    wait(driver, "return document.querySelector('.headline') !== null")
    first = headline(driver)
    assert "step 6" in first
    press(driver, "j")
    wait(driver, f"return document.querySelector('.headline').textContent !== {first!r}")
    press(driver, "k")
    wait(driver, f"return document.querySelector('.headline').textContent === {first!r}")
    before = texts(driver, ".history > span")[0]
    press(driver, ",")
    wait(driver, f"return document.querySelector('.history > span').textContent !== {before!r}")
    press(driver, ".")
    wait(driver, f"return document.querySelector('.history > span').textContent === {before!r}")
    click(driver, "[data-ranking=peak]")
    wait(driver, "return document.querySelector('.token.current') !== null")
    click(driver, ".tokens .token")
    press(driver, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert driver.execute_script("return document.activeElement.textContent") == " is"
    press(driver, "/")
    assert driver.execute_script("return document.activeElement.type") == "search"
    press(driver, "2", Keys.ESCAPE)
    assert driver.find_element(By.CSS_SELECTOR, "input[type=search]").get_attribute("value") == "2"
    press(driver, "?")
    assert driver.execute_script("return document.getElementById('help').open")
    press(driver, Keys.ESCAPE)
    press(driver, "4")
    assert driver.execute_script("return !document.getElementById('part-settings').hidden")


def test_light_and_dark(opened: Opener) -> None:
    driver = opened(1)
    ask = (
        "return [getComputedStyle(document.body).backgroundColor,"
        " Chart.getChart(document.querySelector('canvas')).data.datasets[2].borderColor]"
    )
    light = driver.execute_script(ask)
    press(driver, "t")
    dark = driver.execute_script(ask)
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] == "rgb(20, 23, 27)"
    assert light[1] != dark[1]
    press(driver, "t")
    feature = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    opened(1)
    assert driver.execute_script(ask) == dark
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_what_a_model_wrote_is_shown_as_text(opened: Opener) -> None:
    driver = opened(1, "credit")
    search = driver.find_element(By.CSS_SELECTOR, ".toolbar input[type=search]")
    search.send_keys("sum-x")
    press(driver, Keys.ESCAPE, "j")
    wait(driver, "return document.querySelector('.headline') !== null")
    assert texts(driver, ".tokens .token")[0] == NASTY
    assert texts(driver, ".message .text") == [NASTY] * 4
    assert "problem sum-x <b>" in headline(driver)
    assert driver.find_elements(By.CSS_SELECTOR, "#detail img, .tabulator img, #detail b") == []


def test_settings_are_searched_and_differences_shown(opened: Opener) -> None:
    driver = opened(2, "settings")
    assert "train.seed01" in texts(driver, "#part-settings section:first-child tbody tr")
    search = driver.find_elements(By.CSS_SELECTOR, "#part-settings input")[0]
    search.send_keys("ema_rate")
    assert texts(driver, "#part-settings section:nth-child(2) tbody tr") == [
        "teacher.ema_rate0.010.01"
    ]


def test_a_report_of_several_seeds_shows_their_mean(opened: Opener) -> None:
    driver = opened(2)
    labels = (
        "return Chart.getChart(document.querySelector('canvas')).data.datasets.map((d) => d.label)"
    )
    assert driver.execute_script(labels)[-1] == "first and 1 other seeds"
    driver.execute_script(
        "const s = document.querySelectorAll('#part-learning select')[1]; s.value = 'each';"
        "s.dispatchEvent(new Event('change'))"
    )
    assert driver.execute_script(labels)[-1] == "second"


def test_a_damaged_page_says_so(opened: Opener, folders: list[Path], tmp_path: Path) -> None:
    driver: Any = opened(1)
    page: str = report(folders[:1]).read_text(encoding="utf-8")
    (tmp_path / "cut.html").write_text(page.replace('id="index-0"', 'id="index-9"'))
    driver.get((tmp_path / "cut.html").as_uri())
    wait(driver, "return document.querySelector('[role=alert]') !== null")
    assert "can't be shown" in texts(driver, "[role=alert]")[0]
    assert len(driver.get_log("browser")) == 1
