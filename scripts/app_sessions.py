"""Visitors of the web page: whose files are whose, what waits for the networks, and when all of it goes."""

import json
import re
import secrets
import shutil
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from svfr.data.frames import resize
from svfr.data.video import VideoInfo, VideoWriter, probe, read_frames

COOKIE = "svfr_visitor"
KEPT = 3600  # [s] that files stay
SILENT = 120  # [s] after which a visitor who shows no sign of life has left, and their work stops
SHOWN = 720  # [px] longer side of what the page shows
MOST_WAITING = 50
UPLOAD = "/gradio_api/upload"  # where files come, whose size Gradio limits
MOST_JSON = 1_000_000  # [bytes] of a request; files come another way


class Stopped(Exception):
    """The visitor cancelled, or left."""


@dataclass(eq=False)
class Clip:
    """An upload and what is made of it; its visitor can get the files that are `served`."""

    name: str
    folder: Path
    source: Path
    info: VideoInfo
    served: dict[str, Path] = field(default_factory=dict)
    used: float = field(default_factory=time.time)

    @property
    def made(self) -> Path:
        """The folder of all that is not the upload itself."""
        return self.folder / "made"

    def first(self) -> Path:
        """Its first picture, as small as the page shows it."""
        if not (path := self.made / "first.jpg").is_file():
            _shrink(next(read_frames(self.source)).image, self.info).save(path, quality=92)
        return path

    def link(self, file: Path) -> str:
        """The address of a file, which is served from now on."""
        self.served[file.name] = file
        return f"/mine/{self.name}/{file.name}?{time.time_ns()}"  # never an old one that the browser remembers


@dataclass(eq=False)
class Job:
    """Work for the networks; `advance` is its `on_progress`, and where it stops."""

    clip: Clip
    work: Callable[["Job"], Any]
    stage: str = ""
    frames: float = 0  # done of this stage
    since: float = 0  # when it began
    seen: float = field(default_factory=time.monotonic)  # its visitor
    stop: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: str = ""

    def advance(self, frames: float, stage: str) -> None:
        """Count work; raises `Stopped` where it is no longer wanted."""
        if self.stop.is_set() or time.monotonic() - self.seen > SILENT:
            raise Stopped
        if stage != self.stage:
            self.stage, self.frames, self.since = stage, 0, time.monotonic()
        self.frames += frames

    def playable(self, file: Path, name: str) -> Path:
        """A small copy that every browser shows, without sound."""
        info, path = probe(file), self.clip.made / name
        if info.kind == "image":
            _shrink(next(read_frames(file)).image, info).save(path := path.with_suffix(".jpg"))
            return path
        width, height = _fit(info)
        silent = VideoInfo(self.clip.made, width, height, info.fps, info.num_frames, info.duration)
        with VideoWriter(path.with_suffix(".mp4"), source=silent, encoder={"preset": "veryfast"}) as writer:
            for frame in read_frames(file):
                self.advance(0.5, "compare")
                writer.write(resize(frame.image, width, height), frame.pts, frame.time_base)
        return writer.path

    def run(self) -> None:
        """Do it, and keep what comes of it: the result or one line."""
        try:
            self.advance(0, "start")
            self.result = self.work(self)
        except Stopped:
            self.error = "Cancelled."
        except Exception as error:
            self.error = plain(error)
        self.clip.used = time.time()
        self.done.set()


@dataclass(eq=False)
class Visitor:
    """One browser."""

    clips: dict[str, Clip] = field(default_factory=dict)
    job: Job | None = None  # the latest


class Visitors:
    """All of them, by the secret in their cookie; `folder` holds all files, Gradio's own uploads, too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.jobs: list[Job] = []  # the first is being done
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._known: dict[str, Visitor] = {}
        self._owners: dict[str | Path, set[str]] = {}  # of Gradio's files and session names

    def of(self, request: Any) -> Visitor:
        """Who sends a request; raises ValueError where nobody says."""
        if (visitor := self._known.get(request.cookies.get(COOKIE, ""))) is None:
            raise ValueError("Please load this page again, with cookies allowed.")
        return visitor

    def new_clip(self, visitor: Visitor, make: Callable[[Path], tuple[Path, VideoInfo]]) -> Clip:
        """A clip with a random name; `make` fills its folder."""
        name = secrets.token_urlsafe(16)
        folder = self.folder / "clips" / name
        (folder / "made").mkdir(parents=True)
        try:
            visitor.clips[name] = Clip(name, folder, *make(folder))
        except Exception:
            shutil.rmtree(folder)
            raise
        return visitor.clips[name]

    def start(self, visitor: Visitor, job: Job) -> Job:
        """Put work in line; raises ValueError where there is too much of it."""
        self.jobs = [each for each in self.jobs if not each.done.is_set()]
        if len(self.jobs) >= MOST_WAITING or (visitor.job in self.jobs and not visitor.job.stop.is_set()):
            raise ValueError("Busy: please wait for your other video, or try again in some minutes.")
        self.jobs.append(job)
        visitor.job = job
        self._worker.submit(job.run)
        return job

    def ahead(self, job: Job) -> int:
        """How many jobs come before this one."""
        jobs = [each for each in self.jobs if each is job or not each.done.is_set()]
        return jobs.index(job)

    async def guard(self, request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        """Middleware: refuse what names others' files or sessions, note whose uploads are whose, give cookies."""
        token, path = request.cookies.get(COOKIE, ""), request.url.path
        try:
            allowed = "/proxy=" not in path and "/file/" not in path and await self._owns_all(request, token)
        except (ValueError, OSError, RuntimeError):  # no JSON, no path, or a thousand levels of them
            allowed = False
        if not allowed:
            return PlainTextResponse("not allowed", 403)
        response: Any = await go_on(request)
        if path == UPLOAD and request.method == "POST" and response.status_code == 200:
            body = b"".join([part async for part in response.body_iterator])
            for file in json.loads(body):
                self._owners.setdefault(Path(file).resolve(), set()).add(token)
            return Response(body, media_type="application/json")
        if token not in self._known and response.headers.get("content-type", "").startswith("text/html"):
            self._known[token := secrets.token_urlsafe(32)] = Visitor()
            response.set_cookie(COOKIE, token, httponly=True, samesite="lax")
        return response

    async def _owns_all(self, request: Request, token: str) -> bool:
        path = request.url.path
        named: list[Any] = [dict(request.query_params), {"path": path.partition("/file=")[2] or None}]
        is_upload = path == UPLOAD and request.headers.get("content-type", "").startswith("multipart/form-data")
        if request.method == "POST" and not is_upload:
            if int(request.headers.get("content-length", MOST_JSON)) >= MOST_JSON:
                return False
            if path != "/login":  # a form, which names nothing
                named.append(json.loads(await request.body() or b"null"))
        for thing in mentioned(named):
            if isinstance(thing, Path) and (token not in self._known or self.folder / "gradio" not in thing.parents):
                return False
            if token not in self._owners.setdefault(thing, {token}):  # the first who asks: their names are random
                return False
        return True

    def serve(self, request: Request) -> Response:
        """/mine/CLIP/NAME, of the visitor who asks; nothing of the request becomes a path."""
        visitor = self._known.get(request.cookies.get(COOKIE, ""), Visitor())
        clip = visitor.clips.get(request.path_params["clip"])
        file = clip.served.get(request.path_params["name"]) if clip else None
        if file is None or not file.is_file():
            return PlainTextResponse("not here (any more)", 404)
        return FileResponse(file, headers={"Cache-Control": "private, no-store"})

    def sweep(self, age: float = KEPT) -> None:
        """Delete what is older [s] and not being worked on."""
        oldest, busy = time.time() - age, [job.clip for job in self.jobs if not job.done.is_set()]
        for visitor in list(self._known.values()):
            for clip in list(visitor.clips.values()):
                if clip.used < oldest and clip not in busy:
                    del visitor.clips[clip.name]
                    shutil.rmtree(clip.folder)
        for entry in (self.folder / "gradio").glob("*"):
            if entry.stat().st_mtime < oldest:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def close(self) -> None:
        """Stop all work."""
        for job in self.jobs:
            job.stop.set()
        self._worker.shutdown()


def mentioned(node: Any) -> Iterator[str | Path]:
    """Sessions, and files without links and dots, that a request names, wherever in it."""
    if isinstance(node, dict):
        if isinstance(session := node.get("session_hash"), str):
            yield session
        if isinstance(path := node.get("path"), str):
            yield Path(path).resolve()
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from mentioned(each)


def _fit(info: VideoInfo) -> tuple[int, int]:
    """Even width and height [px] for the page."""
    scale = min(1.0, SHOWN / max(info.width, info.height))
    return max(2, round(info.width * scale / 2) * 2), max(2, round(info.height * scale / 2) * 2)


def _shrink(picture: np.ndarray, info: VideoInfo) -> Image.Image:
    return Image.fromarray(resize(picture, *_fit(info)))


def plain(error: Exception) -> str:
    """What is wrong, in one line without the server's folders; what is no fault of the visitor goes to the log."""
    if isinstance(error, OSError) or not isinstance(error, ValueError):
        traceback.print_exception(error)
        return "This went wrong here, not with your file; the server's log says how."
    return re.sub(r"(?<!\S)/\S*/", "", " ".join(str(error).split()))
