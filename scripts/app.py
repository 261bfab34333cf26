#!/usr/bin/env python
"""A web page that restores videos and photos: on this computer, or with --share for others, too.

    python scripts/app.py [--port 7860] [--weights demo] [--share] [--auth NAME:PASSWORD] [key=value ...]

What visitors upload and get is deleted after an hour, and when this stops.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from demo import write_clip
from PIL import Image

from svfr import SVFRPipeline, config
from svfr.data.degradations import PRESETS, degrade
from svfr.data.frames import task_input
from svfr.data.video import VideoInfo, probe, read_frames
from svfr.inference.folder import load_pipeline
from svfr.inference.settings import InferConfig, VideoSettings
from svfr.synthetic import FPS, TEST_SEEDS, render_clip

try:
    import gradio as gr
    from app_sessions import Clip, Job, Visitors, plain
    from jinja2 import Environment
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.routing import Route
except ModuleNotFoundError as error:
    sys.exit(f"app.py: {error}; pip install 'svfr[app]'")

HERE = Path(__file__).parent
MOST_FPS = 60  # Assumption: who has more frames than these in the longest time lies about the length
DEMO = (
    "This is the small model that comes with the program: it knows rendered faces of {} px alone, not real people. "
    "For real videos, start the page with --weights released."
)
READY = {"A blurred clip": "bfr", "A gray clip": "colorization", "A clip with holes": "inpainting"}
TASKS = [("Make faces clear", "bfr"), ("Colour them", "colorization"), ("Fill in damaged parts", "inpainting")]
MASKS = [("Find them", "auto"), ("Paint over them", "paint"), ("Upload a mask", "file")]
SPEEDS = [("As the model is meant", ""), ("Best (slow)", "paper"), ("Balanced", "balanced"), ("Fast", "fast")]
MEMORY = [("What is free", "auto"), *((f"{gigabytes} GB", gigabytes) for gigabytes in (8, 12, 16, 24))]
PIECES: Any = Environment(autoescape=True).from_string((HERE / "app.html").read_text()).module

STAGES = {"faces": "Looking for faces", "restore": "Restoring", "compare": "Preparing the comparison"}
READY_SIZE, HOLE = 256, (160, 150, 26)  # [px], the hole's centre and radius
MOST_PHOTOS = 8

Updates = dict[Any, Any]  # of the page, by component
Stream = AsyncIterator[Updates]


class Page:
    """What the page shows and does.

    `load` makes the pipeline for a choice of `memory`; `settings` are those of restorations, where the page has no say.
    """

    def __init__(
        self,
        load: Callable[[Any], SVFRPipeline],
        settings: VideoSettings,
        visitors: Visitors,
        most_seconds: float = 60,  # of a video
        is_demo: bool = True,  # whether the model is the bundled one
    ) -> None:
        self.visitors, self._load, self._most_seconds = visitors, load, most_seconds
        self._memory: Any = "auto"
        self._pipe: Any = load("auto")
        self._settings = {each.name: getattr(settings, each.name) for each in fields(VideoSettings)}
        self.blocks = self._build(is_demo)

    def _build(self, is_demo: bool) -> gr.Blocks:
        size, one_step = self._pipe.settings.size, self._pipe.settings.one_step_sigma is not None
        with gr.Blocks(title="SVFR", analytics_enabled=False) as blocks:
            gr.Markdown("# Restore faces in videos and photos")
            if is_demo:
                gr.HTML(f'<p class="about">{DEMO.format(size)}</p>', elem_id="about")
            self.clip = gr.State(None)
            self.file = gr.File(
                label=f"Your video or photo, up to {self._most_seconds:g} s", height=140, elem_id="file"
            )
            with gr.Row(elem_id="ready"):
                ready = [gr.Button(name, size="sm", min_width=110) for name in READY]
            self.first = gr.HTML(elem_id="first")
            self.tasks = gr.CheckboxGroup(TASKS, value=["bfr"], label="What to do", elem_id="tasks")
            with gr.Group(visible=False) as holes:
                self.masks = gr.Radio(MASKS, value="auto", label="Damaged parts", elem_id="masks")
                brush = gr.Brush(default_size=24, colors=["#ffffff"], color_mode="fixed")
                self.editor = gr.ImageEditor(
                    label="Paint over what is to be filled in", elem_id="editor", visible=False,
                    sources=(), transforms=(), layers=False, brush=brush, buttons=[],
                )  # fmt: skip
                self.mask = gr.File(label="Mask: picture or video, white is filled in", visible=False, height=120)
            with gr.Accordion("More choices", open=False, elem_id="more"):
                self.photos = gr.File(label="Sharp photos of the person", file_count="multiple", height=120)
                find = gr.Button("Show the people in it, to choose from", elem_id="find", size="sm")
                self.faces = gr.HTML()
                self.people = gr.CheckboxGroup([], label="Restore these people", visible=False, elem_id="people")
                self.speed = gr.Radio(SPEEDS, value="", label="Speed", visible=not one_step)
                self.memory = gr.Dropdown(MEMORY, value="auto", label="Memory to use")
            self.go = gr.Button("Restore", variant="primary", size="lg", elem_id="go")
            self.stop = gr.Button("Cancel", variant="stop", visible=False, elem_id="stop")
            self.status = gr.HTML(elem_id="status")
            self.result = gr.HTML(elem_id="result")
            shown = [self.clip, self.file, self.first, self.faces, self.people, self.tasks, self.masks]
            moving = [self.go, self.stop, self.status, self.result, self.faces, self.people]
            quiet: Any = {"show_progress": "hidden"}
            for tick in (self.tasks.change, self.masks.change, blocks.load):
                tick(_needs, [self.tasks, self.masks], [holes, self.mask], api_visibility="private", **quiet)
            for tick in (self.masks.change, self.first.change):
                tick(self.canvas, [self.clip, self.masks], self.editor, **quiet)
            outputs = [*shown, self.status, self.result]
            self.file.upload(self.receive, self.file, outputs, concurrency_limit=4, show_progress_on=self.first)
            for button, name in zip(ready, READY, strict=True):
                choice = gr.State(name)
                button.click(self.ready, choice, outputs, api_name=READY[name], show_progress_on=self.first)
            inputs = [self.clip, self.tasks, self.masks, self.editor, self.mask, self.photos, self.people]
            self.go.click(self.restore, [*inputs, self.speed, self.memory], moving, **quiet)
            find.click(self.find, [self.clip, self.memory], moving, **quiet)
            self.stop.click(self.cancel, None, self.status, **quiet)
            blocks.load(self.resume, None, list({*shown, *moving}), **quiet)
        return blocks.queue(default_concurrency_limit=None)

    def receive(self, file: str, request: gr.Request) -> Updates:
        """Take an upload."""

        def make(folder: Path) -> Path:
            os.link(file, source := folder / Path(file).name)
            return source

        return self._take(request, make) | {self.file: None}

    def ready(self, name: str, request: gr.Request) -> Updates:
        """Take a ready clip, of a person whom no model has seen."""
        task = READY[name]

        def make(folder: Path) -> Path:
            seed, path = TEST_SEEDS + list(READY).index(name), folder / f"{name.replace(' ', '_')}.mp4"
            frames, rng = render_clip(seed, 2 * FPS, READY_SIZE).frames, np.random.default_rng(seed)
            y, x = np.ogrid[:READY_SIZE, :READY_SIZE]
            hole = (x - HOLE[0]) ** 2 + (y - HOLE[1]) ** 2 < HOLE[2] ** 2
            if task == "bfr":
                frames = degrade(frames, PRESETS["svfr"].sample(rng, READY_SIZE), rng)
            write_clip(path, (task_input(frame, (task,), hole) for frame in frames))
            return path

        return self._take(request, make) | {self.tasks: [task], self.masks: "auto"}

    def _take(self, request: gr.Request, make: Callable[[Path], Path]) -> Updates:
        def check(folder: Path) -> tuple[Path, VideoInfo]:
            info, most = probe(source := make(folder)), self._most_seconds
            if info.duration > most or info.num_frames > most * MOST_FPS:
                raise ValueError(f"{source.name} is {info.duration:.0f} s long: please cut it to {most:g} s or less.")
            return source, info

        try:
            clip = self.visitors.new_clip(self.visitors.of(request), check)
            return self._show(clip) | {self.status: "", self.result: ""}
        except Exception as error:
            return {self.status: PIECES.error(plain(error)), self.result: "", self.first: "", self.clip: None}

    def _show(self, clip: Clip) -> Updates:
        """A clip's first picture, and nothing of the clip before it."""
        return {
            self.clip: clip.name,
            self.first: PIECES.first(clip.link(clip.first()), clip.source.name, clip.info),
            self.faces: "",
            self.people: gr.update(choices=[], value=[], visible=False),
        }

    def canvas(self, name: str | None, masks: str, request: gr.Request) -> Any:
        """The clip's first picture, to paint on."""
        clip = self.visitors.of(request).clips.get(name or "") if masks == "paint" else None
        if clip is None:
            return gr.update(value=None, visible=False)
        picture = np.asarray(Image.open(clip.first()))
        return gr.update(value={"background": picture, "layers": [], "composite": None}, visible=True)

    async def restore(
        self,
        name: str | None,
        tasks: list[str],
        masks: str,
        editor: dict[str, Any] | None,
        mask: str | None,
        photos: list[str] | None,
        people: list[int],
        speed: str,
        memory: Any,
        request: gr.Request,
    ) -> Stream:
        """Restore, and show how it goes."""
        settings = self._settings | ({"speed": speed} if speed else {})
        settings |= {"faces": ",".join(str(int(number)) for number in people)} if people else {}

        def work(job: Job) -> Updates:
            clip = job.clip
            report = self._pipeline(memory).restore_video(
                clip.source,
                clip.made / f"{clip.source.stem}_restored{'.png' if clip.info.kind == 'image' else '.mp4'}",
                tasks,
                mask=_mask(clip, masks, editor, mask) if "inpainting" in tasks else None,
                reference=[next(read_frames(photo)).image for photo in (photos or ())[:MOST_PHOTOS]] or None,
                on_progress=self._on_progress(job),
                **settings,
            )
            both = [job.playable(clip.source, "before"), job.playable(report.output, "after")]
            links = [clip.link(path) for path in (*both, report.output)]
            return {self.result: PIECES.result(*links, report.output.name, both[0].suffix == ".mp4", report)}

        async for updates in self._run(name, work, request):
            yield updates

    async def find(self, name: str | None, memory: Any, request: gr.Request) -> Stream:
        """Show the people of the clip, to tick."""

        def work(job: Job) -> Updates:
            plan = self._pipeline(memory).plan_video(job.clip.source, self._on_progress(job), **self._settings)
            people = plan.people
            if not people:
                raise ValueError("No face was found.")
            links, numbers = [], [person.number for person in people]
            for person in people:
                Image.fromarray(person.picture).save(path := job.clip.made / f"person{person.number}.png")
                links.append(job.clip.link(path))
            choices = [(f"Person {number}", number) for number in numbers]
            ticks = gr.update(choices=choices, value=numbers, visible=True)
            return {self.faces: PIECES.faces(links), self.people: ticks}

        async for updates in self._run(name, work, request):
            yield updates

    async def resume(self, request: gr.Request) -> Stream:
        """After a reload: the latest clip, and what is done with it."""
        yield {self.status: ""}
        with suppress(ValueError):
            visitor = self.visitors.of(request)
            if visitor.clips:
                yield self._show(list(visitor.clips.values())[-1])
                if visitor.job is not None:
                    async for updates in self._follow(visitor.job):
                        yield updates

    def cancel(self, request: gr.Request) -> None:
        """Stop the visitor's work."""
        with suppress(ValueError):
            if (job := self.visitors.of(request).job) is not None:
                job.stop.set()

    async def _run(self, name: str | None, work: Callable[[Job], Updates], request: gr.Request) -> Stream:
        try:
            visitor = self.visitors.of(request)
            if (clip := visitor.clips.get(name or "")) is None:
                raise ValueError("Please choose a video or photo first (they are deleted after an hour).")
            job = self.visitors.start(visitor, Job(clip, work))
        except ValueError as error:
            yield {self.status: PIECES.error(error)}
            return
        async for updates in self._follow(job):
            yield updates

    async def _follow(self, job: Job) -> Stream:
        buttons = {self.go: gr.update(visible=False), self.stop: gr.update(visible=True)}
        yield buttons | {self.result: ""}
        while not job.done.is_set():
            job.seen = time.monotonic()
            yield buttons | {self.status: self._progress(job)}  # again: a page that still loads may miss the first
            await asyncio.sleep(0.3)
        buttons = {self.go: gr.update(visible=True), self.stop: gr.update(visible=False)}
        yield buttons | {self.status: PIECES.error(job.error) if job.error else ""} | (job.result or {})

    def _progress(self, job: Job) -> str:
        if ahead := self.visitors.ahead(job):
            return PIECES.working(f"Waiting: {ahead} before you", None, "")
        share = min(1.0, job.frames / (job.clip.info.num_frames or np.inf)) if job.stage in STAGES else None
        left = (time.monotonic() - job.since) * (1 / share - 1) if share else 0
        what = "Stopping" if job.stop.is_set() else STAGES.get(job.stage, "Starting")
        return PIECES.working(what, share, f"about {left // 60:.0f}:{left % 60:02.0f} left" if left else "")

    def _on_progress(self, job: Job) -> Callable[[float, str], None]:
        """What counts a job's work, and ends what is longer than it says."""

        def advance(frames: float, stage: str) -> None:
            job.advance(frames, stage)
            if stage == "faces" and job.frames > self._most_seconds * MOST_FPS:
                raise ValueError(f"{job.clip.source.name} is longer than it says: please cut it.")

        return advance

    def _pipeline(self, memory: Any) -> SVFRPipeline:
        """The networks, made anew where another amount of memory is chosen."""
        if memory != self._memory:
            self._pipe = self._memory = None  # what is there has to go first
            self._pipe, self._memory = self._load(memory), memory
        return self._pipe


def _needs(tasks: list[str], masks: str) -> list[Any]:
    """What of the damaged parts' choices is there to see."""
    return [gr.update(visible=x) for x in ("inpainting" in tasks, masks == "file")]


def _mask(clip: Clip, masks: str, editor: dict[str, Any] | None, file: str | None) -> str | Path:
    """What `restore_video` takes as a mask."""
    if masks == "auto":
        return "auto"
    if masks == "file":
        if file is None:
            raise ValueError("Please upload a mask, or choose another way to tell the damaged parts.")
        return Path(file)
    painted = np.zeros((1, 1)) if editor is None or not editor["layers"] else editor["layers"][0][..., 3]
    if not painted.any():
        raise ValueError("Please paint over the damaged parts first.")
    Image.fromarray(np.where(painted > 0, 255, 0).astype(np.uint8)).save(path := clip.made / "painted.png")
    return path


def start(page: Page, **options: Any) -> str:
    """Serve a page; returns its address. Options are of Gradio's `launch`."""
    app_kwargs = {
        "routes": [Route("/mine/{clip}/{name}", page.visitors.serve)],
        "middleware": [Middleware(BaseHTTPMiddleware, dispatch=page.visitors.guard)],
    }
    fonts = ["system-ui", "sans-serif"]
    return page.blocks.launch(
        app_kwargs=app_kwargs,
        allowed_paths=[],
        prevent_thread_lock=True,
        footer_links=[],
        css_paths=HERE / "app.css",
        theme=gr.themes.Default(font=fonts, font_mono=fonts),
        **options,
    )[1]


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit code."""
    settings = config.load(InferConfig, None, options.settings)
    if options.auth and ":" not in options.auth:
        raise ValueError("--auth: has to be NAME:PASSWORD")
    auth = tuple(options.auth.split(":", 1)) if options.auth else None

    def load(memory: Any) -> SVFRPipeline:
        chosen = settings if memory == "auto" else replace(settings, memory=memory)
        return load_pipeline(options.weights, chosen, options.networks, settings.device)

    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="svfr_", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = f"{folder}/gradio"
        page = Page(load, settings, visitors := Visitors(Path(folder)), options.max_seconds, options.weights == "demo")
        where = {"server_name": options.host, "server_port": options.port, "share": options.share}
        try:
            start(page, **where, auth=auth, max_file_size=f"{options.max_mb}mb")
            while True:
                time.sleep(60)
                visitors.sweep()
        finally:
            visitors.close()
            page.blocks.close()
    print("stopped; all uploads and results are deleted", file=sys.stderr)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="demo", help="demo (default), released, a folder, or a Hub id")
    parser.add_argument("--networks", type=Path, help="folder of third-party networks (default: $SVFR_NETWORKS)")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this computer alone)")
    parser.add_argument("--share", action="store_true", help="a public address, through a server of Gradio's makers")
    parser.add_argument("--auth", metavar="NAME:PASSWORD", help="ask visitors for these")
    parser.add_argument("--max-mb", type=int, default=200, help="largest upload [MB]")
    parser.add_argument("--max-seconds", type=float, default=60, help="longest video")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings, as of scripts/infer.py")
    options = parser.parse_intermixed_args(arguments)
    return config.run_command("app.py", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
