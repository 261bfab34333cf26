"""The web page without a browser: what visitors send, and what they get of others."""

import html
import json
import re
import secrets
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from svfr.data.detectors import Face
from svfr.data.video import probe
from tests import clips
from tests.assets import FIELD, needs_field

pytest.importorskip("gradio", reason="the extra app is not installed")
import app

from tests.scripts.served import served

FACE = [(30, 20, 40)]


class Site(NamedTuple):
    url: str
    page: app.Page
    folder: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with served(folder, most_seconds=10, max_file_size="1mb") as page:
        yield Site(page.blocks.local_url, page, folder)


class Person:
    """A visitor with a cookie of their own."""

    def __init__(self, url: str) -> None:
        self.web = httpx.Client(base_url=url, timeout=60)
        self.web.get("/")
        self.session = secrets.token_hex(6)

    def start(self, name: str, *data: Any) -> str:
        sent = self.web.post(f"/gradio_api/call/{name}", json={"data": data, "session_hash": self.session})
        return f"/gradio_api/call/{name}/{sent.raise_for_status().json()['event_id']}"

    def end(self, event: str) -> str:
        """All that it showed."""
        return html.unescape(self.web.get(event).raise_for_status().text.replace('\\"', '"'))

    def upload(self, file: Path) -> str:
        with file.open("rb") as stream:
            [path] = self.web.post("/gradio_api/upload", files={"files": (file.name, stream)}).json()
        return self.end(self.start("receive", {"path": path, "meta": {"_type": "gradio.FileData"}}))

    def restore(self) -> str:
        return self.start("restore", None, ["bfr"], "auto", None, None, None, [], "", "auto")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return clips.video(tmp_path / "family film.mp4", clips.scene(12, [FACE[0]]), sound=True)


def link(text: str, pattern: str) -> str:
    found = re.search(rf"/mine/[\w-]+/{pattern}\?\d+", text)
    assert found, text
    return found[0]


def test_a_visitor_gets_the_result_and_nobody_else_does(site: Site, video: Path, tmp_path: Path) -> None:
    owner, other = Person(site.url), Person(site.url)
    first = link(owner.upload(video), "first.jpg")
    shown = owner.end(owner.restore())
    assert "12 of 12 pictures restored" in shown
    address = link(shown, "family film_restored.mp4")
    (restored := tmp_path / "restored.mp4").write_bytes(owner.web.get(address).content)
    assert probe(restored).num_frames == 12
    assert probe(restored).has_audio
    for each in (first, address, link(shown, "before.mp4"), link(shown, "after.mp4")):
        assert owner.web.get(each).status_code == 200
        assert other.web.get(each).status_code == 404
        assert httpx.get(site.url.rstrip("/") + each).status_code == 404


def test_no_request_reaches_another_file_or_session(site: Site, video: Path, tmp_path: Path) -> None:
    owner, other = Person(site.url), Person(site.url)
    owner.upload(video)
    [path] = owner.web.post("/gradio_api/upload", files={"files": video.read_bytes()}).json()
    assert owner.web.get(f"/gradio_api/file={path}").status_code == 200
    (site.folder / "gradio" / "link").symlink_to("/etc/passwd")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    name = owner.session
    ways = [path, "../../etc/passwd", "/etc/passwd", f"{site.folder}/gradio/link", str(secret), "//etc/passwd"]
    ways += [f"{site.folder}/gradio/../../{tmp_path.name}/secret.txt", "http://127.0.0.1/", "\0", str(site.folder)]
    for way in ways:
        for prefix in (
            "/gradio_api/file=",
            "/gradio_api/file/",
            "/file=",
            "/gradio_api/proxy=",
            "/mine/a/",
            "/static/",
        ):
            response = other.web.get(f"{prefix}{way}".replace("\0", "%00"))
            assert response.status_code in (403, 404, 405), (prefix, way)
        given = {"path": way, "meta": {"_type": "gradio.FileData"}}
        for body in ({"data": [given]}, {"data": [[{"deep": given}]]}):
            joined = other.web.post("/gradio_api/call/receive", json=body)
            assert joined.status_code == 403, way
    for sent_body in ({"data": [], "session_hash": name, "fn_index": 0}, {"event_id": "1", "session_hash": name}):
        assert other.web.post("/gradio_api/queue/join", json=sent_body).status_code == 403
        assert other.web.post("/gradio_api/cancel", json=sent_body).status_code == 403
    assert other.web.get(f"/gradio_api/queue/data?session_hash={name}").status_code == 403
    deep = b"[" * 100_000 + b"]" * 100_000
    for kind in ("application/json; form=multipart/form-data", "APPLICATION/JSON", ""):
        headers = {"content-type": kind} if kind else {}
        call = json.dumps({"data": [], "session_hash": name})
        assert other.web.post("/gradio_api/call/receive", content=call, headers=headers).status_code == 403, kind
    for content in (b"{", deep, b'"' + b"x" * 2_000_000 + b'"'):
        sent = other.web.post("/gradio_api/queue/join", content=content, headers={"content-type": "application/json"})
        assert sent.status_code in (403, 422)


def bad_files(folder: Path, whole: Path) -> list[Path]:
    """Files that are no videos, damaged ones, and what makes careless programs read other files."""
    data, made = whole.read_bytes(), list[Path]()

    def add(name: str, content: bytes) -> None:
        made.append(folder / name)
        made[-1].write_bytes(content)

    for number, share in enumerate((0.02, 0.3, 0.6, 0.9)):
        add(f"cut{number}.mp4", data[: int(share * len(data))])
    for number in range(8):
        start = 40 + number * len(data) // 9
        add(f"hole{number}.mp4", data[:start] + b"\xff" * 300 + data[start + 300 :])
    for suffix in ("mp4", "png", "jpg", "gif", "webm", "txt", "mkv", "avi", "wav", "tif", "webp"):
        add(f"noise.{suffix}", bytes(range(256)) * 20)
    add("empty.mp4", b"")
    add("words.mp4", b"This is no video.")
    add("list.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    add("list.mp4", b"ffconcat version 1.0\nfile '/etc/passwd'\n")
    add("page.html", b"<script>alert(1)</script>")
    add("picture.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>')
    with zipfile.ZipFile(folder / "frames.zip", "w") as archive:
        archive.writestr("../../a.png", b"x")
    made += [folder / "frames.zip", clips.audio_only(folder / "sound.m4a"), clips.no_frames(folder / "none.mp4")]
    return made


@needs_field
def test_bad_files_give_a_message(site: Site, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fuzz = [file for file in (FIELD / "fuzz").iterdir() if file.suffix not in (".py", ".md")]
    files = [*bad_files(tmp_path, video), *fuzz, FIELD / "truncated.jpg"]
    assert len(files) >= 30
    person, accepted = Person(site.url), []
    for file in files:
        said = person.upload(file)
        if 'role="alert"' not in said:
            accepted.append(file.name)
            said = person.end(person.restore())
            assert 'role="alert"' in said or "pictures restored" in said, (file.name, said)
        assert str(site.folder) not in re.sub(r"'(background|url|path)'.*?'\w+'", "", said), said
    assert len(accepted) < len(files) / 3, accepted
    assert "Traceback" not in "".join(capfd.readouterr())


def test_too_long_and_too_large(site: Site, tmp_path: Path) -> None:
    person = Person(site.url)
    long = clips.video(tmp_path / "long.mp4", clips.scene(12, [None]), pts=[1000 * i for i in range(12)])
    assert "please cut it to 10 s" in person.upload(long)
    assert person.web.post("/gradio_api/upload", files={"files": b"x" * 2**20 * 2}).status_code == 413
    assert "choose a video or photo first" in (other := Person(site.url)).end(other.restore())


@pytest.fixture
def slow(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """The same page with a thousand steps a clip; how often the UNet ran."""
    runs = []
    handle = site.page._pipe.unet.register_forward_hook(lambda *_: runs.append(time.monotonic()))
    monkeypatch.setitem(site.page._settings, "num_inference_steps", 1000)
    yield lambda: len(runs)
    handle.remove()


def test_cancel_while_people_are_looked_for(site: Site, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (person := Person(site.url)).upload(video)
    looks: list[np.ndarray] = []

    class Slow(clips.MarkDetector):
        def __call__(self, image: np.ndarray, closer: bool = False) -> list[Face]:
            if not looks:
                site.page.visitors.jobs[-1].stop.set()
            looks.append(image)
            return super().__call__(image, closer)

    monkeypatch.setattr(site.page._pipe, "detector", Slow())
    assert "Cancelled." in person.end(person.start("find", None, "auto"))
    assert len(looks) == 4  # all ways that its first frame can be turned


def test_cancel_frees_the_worker_within_a_step(site: Site, slow: Callable[[], int], video: Path) -> None:
    person = Person(site.url)
    person.upload(video)
    job = person.restore()
    while not slow():
        time.sleep(0.01)
    [work] = [each for each in site.page.visitors.jobs if not each.done.is_set()]
    before, began = slow(), time.monotonic()
    work.stop.set()
    assert work.done.wait(5)
    assert slow() - before <= 3  # the step that runs, of two passes
    assert time.monotonic() - began < 2
    assert "Cancelled." in person.end(job)
    job = person.restore()
    while site.page.visitors.jobs[-1].stage != "restore":
        time.sleep(0.01)
    (tab := Person(site.url)).web.cookies = person.web.cookies
    tab.end(tab.start("cancel"))
    assert "Cancelled." in person.end(job)
    assert not list(work.clip.folder.rglob("*restored*"))


def test_twenty_at_once_are_queued(site: Site, video: Path) -> None:
    def visit(number: int) -> str:
        person = Person(site.url)
        assert "family film" in person.upload(video)
        return person.end(person.restore())

    with ThreadPoolExecutor(20) as pool:
        shown = list(pool.map(visit, range(20)))
    assert ["12 of 12 pictures restored" in each for each in shown] == [True] * 20
    assert len({link(each, "after.mp4").split("?")[0] for each in shown}) == 20


def test_files_go_after_their_time(site: Site, video: Path) -> None:
    person = Person(site.url)
    address = link(person.upload(video), "first.jpg")
    site.page.visitors.sweep()
    assert person.web.get(address).status_code == 200
    site.page.visitors.sweep(age=-1)
    assert person.web.get(address).status_code == 404
    assert not [file for file in site.folder.rglob("*") if file.is_file()]
    assert "choose a video or photo first" in person.end(person.restore())


def test_with_a_password(tmp_path: Path, video: Path) -> None:
    with served(tmp_path / "site", auth=("me", "secret")) as page:
        person = Person(page.blocks.local_url)

        def login(password: str) -> int:
            return person.web.post("/login", data={"username": "me", "password": password}).status_code

        assert login("no") == 400
        for sent in ({"data": {"password": "x" * 1_000_000}}, {"files": {"password": b"x" * 1_000_000}}):
            for path in ("/login", "/gradio_api/call/receive", "/gradio_api/call/upload"):
                assert person.web.post(path, **sent).status_code == 403, path
        assert person.web.post("/login", content=iter([b"password=x"])).status_code == 403  # of a length not said
        assert person.web.get("/config").status_code == 401
        assert person.web.post("/gradio_api/upload", files={"files": video.read_bytes()}).status_code == 401
        assert login("secret") == 200
        assert "family film" in person.upload(video)


def test_a_wrong_call_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["sped=fast"]) == 2
    assert app.main(["--auth", "x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("app.py: ") for line in lines)
