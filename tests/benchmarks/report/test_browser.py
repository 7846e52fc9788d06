"""The page in a real browser: what a reader sees, at every size, with and without a script."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.report.documents import write_html
from dyninfer.routing.policy import route
from tests.benchmarks.report import report_records as records

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402  # skipped where absent
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow

Page = Callable[[BenchRecord], None]
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    service = shutil.which("chromedriver")
    if browser is None or service is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(executable_path=service))
    yield opened
    opened.quit()


@pytest.fixture
def show(driver: Any, tmp_path: Path) -> Iterator[Page]:
    """Opens a record's page at 1100x900, and puts back what a test emulates."""

    def opened(record: BenchRecord) -> None:
        path = tmp_path / "report.html"
        write_html(record, path)
        resize(driver, 1100, 900)
        for kind in ("browser", "performance"):
            driver.get_log(kind)
        driver.get(path.as_uri())
        # on a busy machine the driver may take the empty first page for this one
        WebDriverWait(driver, 30).until(
            lambda d: (
                d.execute_script("return [location.href, document.readyState]")
                == [path.as_uri(), "complete"]
            )
        )

    yield opened
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def resize(driver: Any, width: int, height: int = 800) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def requested(driver: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def text_of(driver: Any, name: str) -> str:
    return str(driver.find_element(By.CSS_SELECTOR, f'[data-text="{name}"]').text)


def shown_groups(driver: Any) -> list[list[str]]:
    return driver.execute_script(
        "return [...document.querySelectorAll('[data-group]')].map("
        "g => [...g.querySelectorAll('[alt], [aria-label]')]"
        ".map(i => i.alt || i.getAttribute('aria-label')))"
    )


def expected_exits(record: BenchRecord, threshold: float) -> dict[str, int]:
    """Name of each sample -> its exit, by the runtime's own rule."""
    found = {}
    for sample in record.pictures.samples:
        easiness = [np.array([np.nan if e is None else e]) for e in sample.easiness]
        goes_on = [bool(route(value, threshold)[0]) for value in easiness]
        found[sample.name] = goes_on.index(False) if False in goes_on else len(goes_on)
    return found


def check_position(driver: Any, record: BenchRecord, index: int) -> None:
    """What is shown at a position against what the record says, computed here."""
    point = record.pictures.curve[index]
    shown = [text_of(driver, name) for name in ("share", "latency", "rate", "threshold")]
    hard = point.hard_fraction
    assert shown == [
        f"{100 * hard:.0f} %" if hard in (0, 1) else f"{100 * hard:.1f} %",
        f"{point.mean_ms:.1f} ms",
        f"{1000 / point.mean_ms:.1f} images/s",
        f"{point.threshold:.4g}",
    ]
    if point.ap is not None:
        assert text_of(driver, "quality") == f"{100 * point.ap:.1f}"
    elif point.agreement is not None:
        agreement = text_of(driver, "quality").strip(" %")
        assert float(agreement) == pytest.approx(100 * point.agreement, abs=0.0501)
    exits = expected_exits(record, point.threshold)
    groups = shown_groups(driver)
    assert {name: at for at, names in enumerate(groups) for name in names} == exits
    counts = [text_of(driver, f"count-{at}") for at in range(len(groups))]
    assert counts == [f"{len(names)} of {len(exits)}" for names in groups]


def slide_to(driver: Any, index: int) -> None:
    driver.execute_script(
        "const s = document.getElementById('setting'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'));",
        index,
    )


def marker_place(driver: Any) -> tuple[float, float]:
    box = driver.execute_script(
        "const b = document.querySelector('.wide [data-moves^=marker] .marker')"
        ".getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]"
    )
    return box[0], box[1]


@pytest.mark.parametrize("name", ["full", "minimal", "three_exits", "single_call", "hostile"])
def test_a_page_shows_without_errors_and_asks_the_network_for_nothing(name, driver, show) -> None:
    record = getattr(records, f"{name}_record")()
    show(record)
    assert driver.title.endswith(": dyninfer bench")
    assert driver.get_log("browser") == []
    urls = requested(driver)
    assert urls
    assert all(url.startswith(("file://", "data:image/jpeg;base64,")) for url in urls)
    assert sum(url.startswith("file://") for url in urls) == 1
    assert (
        driver.execute_script(
            "return performance.getEntriesByType('resource').filter("
            "e => !e.name.startsWith('data:')).length"
        )
        == 0
    )
    for element in driver.find_elements(By.CSS_SELECTOR, "main > section"):
        assert element.is_displayed()
        assert element.size["height"] > 20


def test_hostile_text_is_shown_and_not_run(driver, show) -> None:
    show(records.hostile_record())
    heading = driver.find_element(By.TAG_NAME, "h1").text
    assert heading.startswith("</script><img src=x onerror=alert(1)><!--")
    slide_to(driver, 5)
    assert driver.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert driver.execute_script("return document.scripts.length") == 2


def test_even_an_injected_script_would_not_run(driver, show) -> None:
    show(records.full_record())
    driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.ran = true';"
        "document.body.append(s);"
        "const d = document.createElement('p'); d.innerHTML = '<img src=x onerror=\"ran=1\">';"
        "document.body.append(d);"
    )
    assert driver.execute_script("return window.ran") is None
    refused = [entry["message"] for entry in driver.get_log("browser")]
    assert any("Content Security Policy" in message for message in refused)


def test_the_keyboard_moves_the_slider_and_all_that_follows_it(driver, show) -> None:
    record = records.full_record()
    show(record)
    curve = record.pictures.curve
    start = int(np.argmin([abs(point.hard_fraction - 0.5) for point in curve]))
    check_position(driver, record, start)
    slider = driver.find_element(By.ID, "setting")
    place = marker_place(driver)
    for step in (1, 2, 3):
        slider.send_keys(Keys.ARROW_RIGHT)
        check_position(driver, record, start + step)
        moved = marker_place(driver)
        assert moved[0] > place[0]
        place = moved
    slider.send_keys(Keys.HOME)
    check_position(driver, record, 0)
    assert marker_place(driver)[0] < place[0]
    spoken = slider.get_attribute("aria-valuetext")
    assert spoken == f"{text_of(driver, 'share')} hard, {text_of(driver, 'latency')}, AP " + (
        text_of(driver, "quality")
    )


@pytest.mark.parametrize("name", ["full", "three_exits"])
def test_every_position_shows_what_the_record_says(name, driver, show) -> None:
    record = getattr(records, f"{name}_record")()
    show(record)
    last = len(record.pictures.curve) - 1
    for index in (0, 3, last // 2, last - 1, last, 1):
        slide_to(driver, index)
        check_position(driver, record, index)


def test_pictures_that_changed_sides_are_marked_and_only_these(driver, show) -> None:
    record = records.full_record()
    show(record)
    slide_to(driver, 8)
    slide_to(driver, 15)
    before, after = (
        expected_exits(record, record.pictures.curve[index].threshold) for index in (8, 15)
    )
    changed = {name for name in after if after[name] != before[name]}
    assert changed
    marked = driver.execute_script(
        "return [...document.querySelectorAll('.thumbnail.changed img')].map(i => i.alt)"
    )
    badges = driver.execute_script(
        "return [...document.querySelectorAll('.thumbnail:has(.badge:not([hidden])) img')]"
        ".map(i => i.alt)"
    )
    assert set(marked) == set(badges) == changed
    told = driver.find_element(By.ID, "moved").get_attribute("textContent")
    assert told == f"{len(changed)} of {len(after)} pictures moved"
    slide_to(driver, 15)
    assert driver.find_elements(By.CSS_SELECTOR, ".changed") == []


def test_the_line_in_the_histogram_follows_the_threshold(driver, show) -> None:
    record = records.three_exits_record()
    show(record)

    def places() -> list[float]:
        return driver.execute_script(
            "return [...document.querySelectorAll('.wide [data-moves^=threshold] line')]"
            ".map(l => l.getBoundingClientRect().x)"
        )

    found = []
    for index in (2, 10, 18):
        slide_to(driver, index)
        found.append(places())
    thresholds = [record.pictures.curve[index].threshold for index in (2, 10, 18)]
    assert all(len(lines) == 2 for lines in found)
    rate = (found[1][0] - found[0][0]) / (thresholds[1] - thresholds[0])
    again = (found[2][0] - found[0][0]) / (thresholds[2] - thresholds[0])
    assert rate == pytest.approx(again, rel=0.01)
    assert rate > 0


def test_python_to_copy_follows_the_slider(driver, show) -> None:
    record = records.full_record()
    show(record)
    box = driver.find_element(By.ID, "policy")
    slide_to(driver, len(record.pictures.curve) - 1)
    assert box.text == "detector.policy = dyninfer.AlwaysHard()"
    slide_to(driver, 12)
    shown = float(re.fullmatch(r"detector\.policy = dyninfer\.Threshold\((.+)\)", box.text)[1])
    (easiness,) = record.pictures.easiness
    exact = record.pictures.curve[12].threshold
    known = np.array([e for e in easiness if e is not None])
    assert (route(known, shown) == route(known, exact)).all()
    button = driver.find_element(By.ID, "copy")
    assert button.is_displayed()
    button.click()
    selected = "return String(getSelection())"
    assert driver.execute_script(selected) == box.text


def ground(driver: Any) -> str:
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")


def prefer(driver: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_light_and_dark_follow_the_system_until_one_is_chosen(driver, show) -> None:
    show(records.full_record())
    grounds = []
    for scheme in ("light", "dark"):
        prefer(driver, scheme)
        grounds.append(ground(driver))
    assert grounds[0] != grounds[1]
    driver.find_element(By.CSS_SELECTOR, "label[for=theme-light]").click()
    assert ground(driver) == grounds[0]
    driver.find_element(By.CSS_SELECTOR, "label[for=theme-dark]").click()
    prefer(driver, "light")
    assert ground(driver) == grounds[1]


CONTRASTS = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => {
  const style = getComputedStyle(node);
  if (node.classList.contains('in-bar')) return rgba(style.stroke);
  for (let at = node; at; at = at.parentElement) {
    const found = rgba(getComputedStyle(at).backgroundColor);
    if (found[3] === 255) return found;
  }
};
const worst = [];
for (const node of document.querySelectorAll('body *')) {
  const own = [...node.childNodes].some(c => c.nodeType === 3 && c.data.trim());
  if (!own || !node.checkVisibility() || ['SCRIPT', 'TITLE', 'DESC'].includes(
      node.tagName.toUpperCase())) continue;
  const style = getComputedStyle(node);
  const ink = rgba(node.ownerSVGElement ? style.fill : style.color);
  const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize)
    * (node.ownerSVGElement ? node.getScreenCTM().a : 1);
  worst.push([(a + 0.05) / (b + 0.05), size, node.textContent.slice(0, 40)]);
}
return worst;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(scheme, driver, show) -> None:
    show(records.full_record())
    prefer(driver, scheme)
    slide_to(driver, 3)
    found = driver.execute_script(CONTRASTS)
    assert len(found) > 300
    assert [entry for entry in found if entry[0] < 4.5] == []


OUTSIDE = """
const wide = document.scrollingElement.clientWidth;
return [...document.querySelectorAll('body *')].filter(n => n.checkVisibility()
    && !n.closest('.table, .unseen, .skip, .definitions, .theme')
    && (n.getBoundingClientRect().right > wide + 1 || n.getBoundingClientRect().left < -1)
  ).map(n => [n.tagName, n.textContent.slice(0, 40)]);
"""


@pytest.mark.parametrize("name", ["full", "hostile"])
def test_a_small_window_needs_no_sideways_scrolling_nor_a_magnifying_glass(
    name, driver, show
) -> None:
    record = getattr(records, f"{name}_record")()
    show(record)
    for width in (360, 400, 701, 901):
        resize(driver, width)
        for index in (0, len(record.pictures.curve) - 1):
            slide_to(driver, index)
            needed = driver.execute_script("return document.scrollingElement.scrollWidth")
            assert needed <= driver.execute_script("return innerWidth")
            assert driver.execute_script(OUTSIDE) == []
        assert [entry for entry in driver.execute_script(CONTRASTS) if entry[1] < 11] == []


def test_a_wide_table_scrolls_in_its_own_box_and_by_keyboard(driver, show) -> None:
    show(records.full_record())
    resize(driver, 400)
    widths = driver.execute_script(
        "const t = document.querySelector('#latency .table');"
        "return [t.scrollWidth, t.clientWidth, t.tabIndex, getComputedStyle(t).overflowX]"
    )
    assert widths[0] > widths[1]
    assert widths[2:] == [0, "auto"]


def printed_text(pdf: bytes) -> int:
    """How often text is shown in the pages of a PDF, whose streams are deflated."""
    shown = 0
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            plain = zlib.decompress(stream)
        except zlib.error:
            continue
        shown += len(re.findall(rb"\bT[jJ]\b", plain))
    return shown


def test_the_page_prints_with_the_slider_s_setting_as_text(driver, show) -> None:
    record = records.full_record()
    show(record)
    prefer(driver, "dark")
    slide_to(driver, 9)
    options = {"printBackground": True, "preferCSSPageSize": True}
    answer = driver.execute_cdp_cmd("Page.printToPDF", options)
    pdf = base64.b64decode(answer["data"])
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", pdf)) >= 4
    assert printed_text(pdf) > 500
    # as wide as the printable part of A4
    resize(driver, 688)
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert not driver.find_element(By.ID, "setting").is_displayed()
    assert not driver.find_element(By.ID, "copy").is_displayed()
    check_position(driver, record, 9)
    assert driver.execute_script(OUTSIDE) == []
    scroll = "return document.scrollingElement.scrollWidth"
    assert driver.execute_script(scroll) <= 688
    assert ground(driver) == "rgb(255, 255, 255)"


def test_without_a_script_the_page_shows_one_setting_and_lists_all(driver, show) -> None:
    record = records.full_record()
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    show(record)
    start = int(np.argmin([abs(p.hard_fraction - 0.5) for p in record.pictures.curve]))
    check_position(driver, record, start)
    assert "Without JavaScript" in driver.find_element(By.TAG_NAME, "noscript").text
    assert not driver.find_element(By.ID, "setting").is_enabled()
    assert not driver.find_element(By.ID, "copy").is_displayed()
    driver.find_element(By.CSS_SELECTOR, "#curve summary").click()
    rows = driver.find_elements(By.CSS_SELECTOR, "#curve tbody tr")
    assert len(rows) == len(record.pictures.curve)
    assert all(row.is_displayed() for row in rows)
    driver.find_element(By.CSS_SELECTOR, "label[for=theme-dark]").click()
    assert ground(driver) != "rgb(255, 255, 255)"


def test_a_record_of_one_setting_has_a_slider_that_stays(driver, show) -> None:
    record = records.full_record()
    single = replace(record.pictures, curve=record.pictures.curve[5:6])
    show(replace(record, pictures=single))
    driver.find_element(By.ID, "setting").send_keys(Keys.ARROW_RIGHT)
    assert driver.get_log("browser") == []
    assert text_of(driver, "latency") == f"{single.curve[0].mean_ms:.1f} ms"
