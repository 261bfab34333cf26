"""Step 7: write the clips, the manifest, the data card and the contact sheet."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_prep.card import write_card
from data_prep.frames import load_arrays, save_arrays, walk
from data_prep.landmarks import KIND as LANDMARKS
from data_prep.pictures import contact_sheet
from data_prep.records import STEPS, OutputError, Record, file_name, read_step, write_lines
from data_prep.runner import Step, by_source, num_frames, rejected_file
from data_prep.settings import DataPrepConfig
from data_prep.track import KIND as TRACKS
from data_prep.workers import Workers
from svfr.data.faces import crop
from svfr.data.manifest import Clip, read_manifest, write_manifest
from svfr.data.video import VideoError, VideoInfo, VideoWriter, read_frames
from svfr.files import sha256_of

MANIFEST, SHEET, REJECTED = "manifest.jsonl", "contact_sheet.png", "rejected.jsonl"
# One keyframe a second or so, since training starts anywhere (measured: twice as many random clips a second as with
# one every 250 frames); one thread, since x264 writes other bytes with another number of them.
ENCODER = {"g": "30", "threads": "1"}
TILES = 3  # frames of a clip on the contact sheet


def check(settings: DataPrepConfig) -> None:
    """Nothing is needed beforehand."""


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write manifest.jsonl and what it names: clips/ID.mp4 (unless `write.mode=references`) and landmarks/ID.npz.

    Beside it data_card.md, contact_sheet.png, and rejected.jsonl with all that any step left out.
    """
    output = Path(settings.output)
    clips = read_step(output, "identities")
    mode = settings.write.mode
    facts = {"mode": mode, **({"size": settings.write.size, "crf": settings.write.crf} if mode == "clips" else {})}
    step = Step("write", settings, workers, facts)
    function = write_clips if mode == "clips" else refer_to_clips
    # Who it is and what it is for changes with every other clip, the pixels don't.
    inputs = by_source({k: v for k, v in clip.items() if k not in ("identity", "split")} for clip in clips)
    records = step.map(function, inputs, num_frames)
    for folder in ("clips", "landmarks"):
        step.sweep(folder, records)
    step.finish(records)

    about = {clip["id"]: clip for clip in clips}
    written = [(record["clip"], about[record["clip"]["id"]]) for record in records if "clip" in record]
    manifest = [Clip(**{**clip, "identity": of["identity"], "split": of["split"]}) for clip, of in written]
    write_manifest(output / MANIFEST, manifest)
    manifest = read_manifest(output / MANIFEST)
    contact_sheet(_sheet(manifest, output, settings.write.sheet), output / SHEET)
    left_out = collect_rejected(output)
    write_lines(output / REJECTED, left_out)
    write_card(output / "data_card.md", manifest, [of for _, of in written], left_out, settings)
    return records


def collect_rejected(output: Path) -> list[Record]:
    """What the steps left out, in their order."""
    files = [rejected_file(output, step) for step in STEPS]
    return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]


def write_clips(clips: list[Record], settings: DataPrepConfig) -> list[Record]:
    """Cut the clips of one file out, as files of their own.

    Raises:
        ValueError: it cannot be read.
        OutputError: something cannot be written.
    """
    output, size = Path(settings.output), settings.write.size
    crops = [load_arrays(output, TRACKS, clip["id"])["crops"] for clip in clips]
    names = [f"clips/{file_name(clip['id'], '.mp4')}" for clip in clips]
    writers: dict[int, tuple[VideoWriter, ExitStack]] = {}  # only of clips that go on, each takes memory
    with _output_errors(output), ExitStack() as unfinished:
        for image, places in walk(Path(settings.source.path) / clips[0]["source"], clips):
            for i, at in places:
                if at == 0:
                    closing = unfinished.enter_context(ExitStack())
                    writers[i] = closing.enter_context(_writer(output / names[i], clips[i], settings)), closing
                writer, closing = writers[i]
                writer.write(crop(image, crops[i][at], size), at, 1 / Fraction(clips[i]["fps"]))
                if at == clips[i]["num_frames"] - 1:
                    closing.close()
                    del writers[i]
    records = []
    for clip, name, boxes in zip(clips, names, crops, strict=True):
        scale = size / (boxes[:, 2] - boxes[:, 0])
        landmarks = _landmarks(clip, output, boxes[:, :2], scale)
        files = [name, *([landmarks] if landmarks else [])]
        entry = _clip(clip, name, 0, size, None, landmarks, sha256_of(output / name))
        records.append({"source": clip["source"], "clip": entry, "files": files})
    return records


def refer_to_clips(clips: list[Record], settings: DataPrepConfig) -> list[Record]:
    """Name the places of the clips in the original file, with a square that holds the face all along."""
    output = Path(settings.output)
    records = []
    for clip in clips:
        square = still_square(load_arrays(output, TRACKS, clip["id"])["crops"], clip["width"], clip["height"])
        video = os.path.relpath(Path(settings.source.path) / clip["source"], output)
        origin = np.repeat(np.array(square[:2])[None], clip["num_frames"], axis=0)
        landmarks = _landmarks(clip, output, origin, np.ones(clip["num_frames"]))
        entry = _clip(clip, video, clip["start_frame"], square[2] - square[0], square, landmarks, clip["sha256"])
        records.append({"source": clip["source"], "clip": entry, "files": [landmarks] if landmarks else []})
    return records


def still_square(crops: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The square of whole px around all of a clip's crops, inside of the frame and as small as its shorter side.

    Args:
        crops: (f, 4) [px].
        width: of the frame [px].
        height: of the frame [px].
    """
    low, high = crops[:, :2].min(axis=0), crops[:, 2:].max(axis=0)
    side = int(min(np.ceil((high - low).max()), width, height))
    corner = np.rint((low + high) / 2 - side / 2)
    x, y = (int(v) for v in np.clip(corner, 0, [width - side, height - side]))
    return x, y, x + side, y + side


def _clip(
    clip: Record,
    video: str,
    start: int,
    size: int,
    square: tuple[int, int, int, int] | None,
    landmarks: str | None,
    sha256: str,
) -> Record:
    """A line of the manifest, without who it is and what it is for."""
    return {
        "id": clip["id"],
        "video": video,
        "source": clip["source"],
        "start_frame": start,
        "num_frames": clip["num_frames"],
        "fps": float(Fraction(clip["fps"])),
        "width": size,
        "height": size,
        "quality": clip["quality"],
        "crop": square,
        "landmarks": landmarks,
        "sha256": sha256,
    }


def _landmarks(clip: Record, output: Path, origin: np.ndarray, scale: np.ndarray) -> str | None:
    """Save the landmarks in px of the crop; returns the file, None if there are no landmarks."""
    if clip["trusted"] is None:
        return None
    arrays = load_arrays(output, LANDMARKS, clip["id"])
    points = (arrays["points"] - origin[:, None]) * scale[:, None, None]
    return save_arrays(output, "landmarks", clip["id"], points=points.astype(np.float32), score=arrays["score"])


def _writer(path: Path, clip: Record, settings: DataPrepConfig) -> VideoWriter:
    size = settings.write.size
    silent = VideoInfo(path, size, size, Fraction(clip["fps"]), clip["num_frames"], 0.0, False, 0, "frames")
    path.parent.mkdir(parents=True, exist_ok=True)
    return VideoWriter(path, source=silent, crf=settings.write.crf, encoder=ENCODER)


@contextmanager
def _output_errors(output: Path) -> Iterator[None]:
    """Tell errors of what is written, which stop the step, from those of what is read."""
    try:
        yield
    except (VideoError, OSError) as error:
        path = str(output / "clips")
        if str(error).startswith(path) or str(getattr(error, "filename", "")).startswith(path):
            raise OutputError(str(error)) from error
        raise


def _sheet(manifest: list[Clip], output: Path, count: int) -> list[tuple[list[np.ndarray], str]]:
    """Frames and captions of up to `count` clips, evenly spread over the manifest."""
    chosen = sorted({int((k + 0.5) * len(manifest) / count) for k in range(count)}) if len(manifest) > count else None
    clips = [manifest[i] for i in chosen] if chosen else manifest
    return [(_tiles(clip, output), _caption(clip)) for clip in clips]


def _tiles(clip: Clip, output: Path) -> list[np.ndarray]:
    wanted = [clip.start_frame + int((k + 0.5) * clip.num_frames / TILES) for k in range(TILES)]
    found = {}
    for frame in read_frames(output / clip.video):
        if frame.index in wanted:
            box = clip.crop or (0, 0, frame.image.shape[1], frame.image.shape[0])
            found[frame.index] = crop(frame.image, box, clip.width)
        if frame.index >= wanted[-1]:
            break
    return [found[index] for index in wanted if index in found]


def _caption(clip: Clip) -> str:
    quality = "" if clip.quality is None else f", quality {clip.quality:.2f}"
    return f"{clip.id[:60]}\nperson {clip.identity}, {clip.split}, {clip.num_frames} frames{quality}"
