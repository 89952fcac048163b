"""The pages in a real browser: headless Chromium, one server, one model."""

import csv
import json
import shutil
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
SWITCHES = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
SWITCHES += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
SECONDS = 40
# What selenium calls Keys.CONTROL + "a", ENTER and TAB.
ALL, ENTER, TAB = "\ue009a", "\ue007", "\ue004"
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}

MISSING = [name for name in ("gradio", "selenium", "onnx", "onnxruntime") if not find_spec(name)]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"),
    # Gradio keeps statistics of its queue with an option that pandas 3 deprecates.
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> Path:
    """Where the server keeps files."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(model, uploads):
    """A server in a thread of this process."""
    import uvicorn

    from wafer_lab.demo.app import application, bound, server_config

    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(uploads))
    with bound("127.0.0.1", 0) as listening:
        server = uvicorn.Server(server_config(application(model, uploads, "127.0.0.1")))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)
    patch.undo()


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(address, downloads, tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in [*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1200,900"]:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    """The start page, freshly loaded."""
    browser.get(address)
    until(browser, lambda: "Choose a file" in text(browser, "#answer"))
    return browser


def until(browser, asked):
    """Wait until something is true."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    ignored = (NoSuchElementException, StaleElementReferenceException)
    return WebDriverWait(browser, SECONDS, 0.1, ignored).until(lambda _: asked())


def text(browser, place):
    return browser.find_element("css selector", place).text


def heading(browser):
    found = browser.find_elements("css selector", "#answer h2")
    return found[0].text if found else ""


def upload(browser, place, *files):
    browser.find_element("css selector", f"{place} input[type=file]").send_keys("\n".join(map(str, files)))


def saved(folder, name, array):
    np.save(folder / name, array)
    return folder / name


def open_batch(browser):
    next(tab for tab in browser.find_elements("css selector", "[role=tab]") if tab.text == "Batch").click()
    until(browser, browser.find_element("id", "batch-upload").is_displayed)


def widest(browser):
    return browser.execute_script("return document.documentElement.scrollWidth")


def test_upload_then_example_then_upload(page, wafer, uploads, tmp_path):
    upload(page, "#upload", saved(tmp_path, "mine.npy", wafer(0.95)))
    until(page, lambda: heading(page) == "Near-full")
    said = text(page, "#answer")
    for part in ("mine.npy", "Calibrated probabilities", "Prediction set", "90 %", "Illustrative", "(CAM)"):
        assert part in said
    assert list(uploads.rglob("mine.npy"))  # in the folder that goes when the server ends
    page.find_element("css selector", "#examples input[value=none]").click()
    until(page, lambda: heading(page) == "none")
    assert "simulated wafer of none" in text(page, "#answer")
    assert "mine.npy" not in text(page, "#upload")  # the page is about one wafer at a time
    stack = np.stack([wafer(0.95), wafer(0.5)])
    upload(page, "#upload", saved(tmp_path, "two.npy", stack))
    until(page, lambda: heading(page) == "Near-full")
    row = page.find_element("css selector", "#row input")
    row.send_keys(ALL)
    row.send_keys(f"1{ENTER}")
    until(page, lambda: heading(page) == "Random")
    pictures = page.find_elements("css selector", "#answer img")
    assert all(page.execute_script("return arguments[0].naturalWidth", picture) > 100 for picture in pictures)


def test_bad_files_are_one_message_each_and_the_server_lives_on(page, wafer, tmp_path):
    from PIL import Image

    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "code.pkl").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00echo\x85R.")
    bad = [
        (tmp_path / "red.png", "off-wafer #FFFFFF"),
        (tmp_path / "empty.npy", "empty.npy"),
        (tmp_path / "code.pkl", "code.pkl"),
        (saved(tmp_path, "nan.npy", np.full((9, 9), np.nan)), "holds the value nan"),
        (saved(tmp_path, "states.npy", np.full((9, 9), 9)), "holds the value 9"),
        (saved(tmp_path, "cell.npy", np.ones((1, 1), np.uint8)), "too few to show a pattern"),
        (saved(tmp_path, "huge.npy", np.ones((4000, 4000), np.uint8)), "4,000 x 4,000"),
    ]
    for file, expected in bad:
        upload(page, "#upload", file)
        until(page, lambda expected=expected: expected in text(page, "#answer [role=alert]"))
        assert len(page.find_elements("css selector", "#answer [role=alert]")) == 1
        page.find_element("css selector", "#examples input[value=none]").click()
        until(page, lambda: heading(page) == "none")
    upload(page, "#upload", saved(tmp_path, "good.npy", wafer(0.5)))
    until(page, lambda: heading(page) == "Random")


def test_batch_is_judged_filtered_and_downloaded(page, wafer, downloads, tmp_path):
    stack = np.stack([wafer(share) for share in np.linspace(0, 1, 30)]).astype(float)
    stack[4, 0, 0] = 7
    open_batch(page)
    upload(page, "#batch-upload", saved(tmp_path, "lot.npy", stack))
    until(page, lambda: "30 of 30 rows" in text(page, "#table"))
    totals = text(page, "#totals")
    assert "yield" in totals
    assert "Near-full (" in totals
    page.find_element("css selector", "#only-errors input").click()
    until(page, lambda: "1 of 30 rows" in text(page, "#table"))
    assert "holds the value 7" in text(page, "#table tbody tr")
    page.find_element("id", "download").click()
    table = downloads / "lot_predictions.csv"
    until(page, table.is_file)
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["index"] for row in rows] == [str(k) for k in range(30)]
    assert rows[-1]["prediction"] == "Near-full"
    assert "7" in rows[4]["error"]


def test_two_uploads_at_once_get_each_their_own(page, address, wafer, tmp_path):
    files = [saved(tmp_path, f"{share}.npy", wafer(share)) for share in (0.02, 0.95)]
    first = page.current_window_handle
    page.switch_to.new_window("tab")
    second = page.current_window_handle
    page.get(address)
    until(page, lambda: "Choose a file" in text(page, "#answer"))
    for window, file in ((second, files[1]), (first, files[0])):
        page.switch_to.window(window)
        upload(page, "#upload", file)
    until(page, lambda: heading(page) == "none")
    assert "0.02.npy" in text(page, "#answer")
    page.switch_to.window(second)
    until(page, lambda: heading(page) == "Near-full")
    assert "0.95.npy" in text(page, "#answer")
    page.close()
    page.switch_to.window(first)


def test_a_phone_shows_it_without_scrolling_sideways(page, wafer, tmp_path):
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        page.find_element("css selector", "#examples input[value=Random]").click()
        until(page, lambda: heading(page) == "Random")
        assert widest(page) <= PHONE["width"]
        open_batch(page)
        upload(page, "#batch-upload", saved(tmp_path, "few.npy", np.stack([wafer(0.5), np.zeros((20, 20), np.uint8)])))
        until(page, lambda: "2 of 2 rows" in text(page, "#table"))
        assert widest(page) <= PHONE["width"]
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_reaches_everything(page):
    seen = []
    for _ in range(12):
        page.switch_to.active_element.send_keys(TAB)
        focused = page.switch_to.active_element
        owner = page.execute_script("const e = arguments[0].closest('[id]'); return e ? e.id : ''", focused)
        place = page.execute_script(
            "for (const p of ['upload', 'row', 'again', 'examples'])"
            " if (document.getElementById(p).contains(arguments[0])) return p; return arguments[0].textContent.trim()",
            focused,
        )
        seen.append(place or owner)
        if place == "examples":
            break
    order = [name for name in seen if name in ("upload", "row", "again", "examples")]
    assert list(dict.fromkeys(order)) == ["upload", "row", "again", "examples"]
    page.switch_to.active_element.send_keys(" ")
    until(page, lambda: heading(page))
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('input:not([type=file]), button, select')].filter(e => e.offsetParent &&"
        " !(e.textContent.trim() || e.getAttribute('aria-label') || e.title || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert not unnamed


def test_no_request_leaves_the_machine(browser, address):
    """All requests of the tests above, and what the page holds now."""
    time.sleep(0.5)
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {event["params"]["request"]["url"] for event in asked if event["method"] == "Network.requestWillBeSent"}
    urls |= {event["params"]["url"] for event in asked if event["method"] == "Network.webSocketCreated"}
    parts = [urlsplit(url) for url in urls]
    hosts = {part.hostname for part in parts if part.scheme in ("http", "https", "ws", "wss")}
    assert len(urls) > 20
    assert hosts == {urlsplit(address).hostname}
