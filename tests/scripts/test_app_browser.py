"""The web page in a browser, as people use it: desktop and phone, two at once. Screenshots go to $SVFR_SCREENSHOTS."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svfr.data.video import probe, read_frames
from tests import clips

pytest.importorskip("gradio", reason="the extra app is not installed")
import app

from tests.scripts.served import served

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver are installed"),
]
PATIENCE = 60  # [s]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[app.Page]:
    with served(tmp_path_factory.mktemp("site")) as page:
        yield page


class Browser:
    def __init__(self, url: str, downloads: Path, width: int) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for switch in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "no-proxy-server"):
            options.add_argument(f"--{switch}")
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": width, "height": 900}})
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.get(url)
        self.wait("#go")

    def all(self, selector: str) -> list[Any]:
        return [each for each in self.driver.find_elements("css selector", selector) if each.is_displayed()]

    def wait(self, selector: str, text: str = "") -> Any:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for each in self.all(selector):
                if text in each.text:
                    return each
            time.sleep(0.1)
        raise TimeoutError(f"{selector} with '{text}': {self.driver.find_element('css selector', 'body').text}")

    def click(self, selector: str, text: str = "") -> None:
        self.driver.execute_script("arguments[0].click()", self.wait(selector, text))

    def choose(self, file: Path, inside: str = "#file") -> None:
        self.driver.find_element("css selector", f"{inside} input[type=file]").send_keys(str(file))

    def picture(self, name: str) -> None:
        if folder := os.environ.get("SVFR_SCREENSHOTS"):
            self.driver.save_screenshot(f"{folder}/{name}.png")

    def errors(self) -> list[str]:
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]


@pytest.fixture
def browse(page: app.Page, tmp_path: Path) -> Iterator[Callable[[int], Browser]]:
    opened = []

    def open_one(width: int = 1100) -> Browser:
        opened.append(Browser(page.blocks.local_url, tmp_path, width))
        return opened[-1]

    yield open_one
    for each in opened:
        each.driver.quit()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    faces = clips.scene(24, [(30, 20, 60)], height=192, width=256)
    return clips.video(tmp_path / "film.mp4", faces, sound=True)


def test_restore_compare_download(browse: Callable[..., Browser], video: Path, tmp_path: Path) -> None:
    browser = browse()
    browser.picture("start")
    browser.choose(video)
    browser.wait(".caption", "film.mp4")
    browser.click("#more button")
    browser.click("#find")
    browser.wait("#people label", "Person 1")
    browser.picture("people")
    browser.click("#go")
    browser.wait(".compare")
    videos = browser.all(".compare video")
    assert len(videos) == 2
    browser.driver.execute_script("arguments[0].scrollIntoView()", videos[0])  # what is not in view does not play
    times = "return [...document.querySelectorAll('.compare video')].map(v => [v.currentTime, v.paused, v.videoWidth])"
    time.sleep(1)
    (before, paused, width), (after, _, other) = browser.driver.execute_script(times)
    assert not paused
    assert width == other == 256
    assert abs(before - after) < 0.3
    slider = browser.driver.find_element("css selector", ".compare input")
    browser.driver.execute_script("arguments[0].value = 20; arguments[0].oninput()", slider)
    assert "20%" in browser.driver.execute_script("return getComputedStyle(arguments[0]).clipPath", videos[1])
    browser.picture("result")
    browser.click(".actions button", "Pause")
    assert browser.driver.execute_script(times)[0][1]
    browser.click(".actions a", "Download")
    result, until = tmp_path / "film_restored.mp4", time.monotonic() + PATIENCE
    while not result.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert probe(result).has_audio
    assert probe(result).num_frames == 24
    assert browser.errors() == []


def test_a_wrong_file_on_a_phone(browse: Callable[..., Browser], tmp_path: Path) -> None:
    (words := tmp_path / "letter.txt").write_text("Dear all")
    phone = browse(360)
    phone.choose(words)
    phone.wait(".error", "letter.txt")
    phone.picture("phone")
    assert phone.driver.execute_script("return document.documentElement.scrollWidth") <= 360
    phone.click("#ready button", "holes")
    phone.wait(".caption", "2 s")
    phone.click("#go")
    phone.wait(".compare")
    phone.picture("phone_result")
    assert phone.driver.execute_script("return document.documentElement.scrollWidth") <= 360


def test_paint_a_mask(browse: Callable[..., Browser], video: Path, page: app.Page) -> None:
    browser = browse()
    browser.choose(video)
    browser.wait(".caption", "film.mp4")
    browser.click("#tasks label", "Fill in")
    browser.click("#masks label", "Paint")
    canvas = browser.wait("#editor canvas")
    time.sleep(2)
    pen = webdriver.ActionChains(browser.driver)
    pen.move_to_element(canvas).click_and_hold().move_by_offset(40, 10).move_by_offset(-20, 20).release().perform()
    time.sleep(1)
    browser.driver.execute_script("arguments[0].scrollIntoView()", canvas)
    browser.picture("paint")
    browser.click("#go")
    browser.wait(".compare")
    [clip] = [c for v in page.visitors._known.values() for c in v.clips.values() if (c.made / "painted.png").exists()]
    mask = next(read_frames(clip.made / "painted.png")).image
    assert mask.shape == (192, 256, 3)
    assert 0.001 < (np.asarray(mask) > 127).mean() < 0.3


def test_two_at_once_and_cancel(
    browse: Callable[..., Browser], video: Path, page: app.Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(page._settings, "num_inference_steps", 1000)
    first, second = browse(), browse()
    for each in (first, second):
        each.choose(video)
        each.wait(".caption", "film.mp4")
    first.click("#go")
    first.wait(".working", "left")
    first.picture("working")
    second.click("#go")
    second.wait(".working", "1 before you")
    first.driver.refresh()
    first.wait(".working", "Restoring")  # still there after a reload
    monkeypatch.setitem(page._settings, "num_inference_steps", 2)
    first.click("#stop")
    first.wait(".error", "Cancelled.")
    second.click("#stop")
    second.wait(".error", "Cancelled.")
    second.click("#go")
    second.wait(".compare")
    assert not first.all(".compare")
