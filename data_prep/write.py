"""Step 7: write the clips, the manifest, the data card and the contact sheet."""

import os
from contextlib import ExitStack
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_prep.card import write_card, write_contact_sheet
from data_prep.records import LANDMARKS, TRACKS, Record, file_name, load_arrays, read_step, save_arrays, walk
from data_prep.runner import Step
from data_prep.settings import DataPrepConfig
from data_prep.track import enlargement
from svfr import note
from svfr.data.faces import crop
from svfr.data.manifest import Clip, read_manifest, write_manifest
from svfr.data.video import VideoInfo, VideoWriter
from svfr.files import sha256_of
from svfr.inference.workers import Workers

MANIFEST = "manifest.jsonl"
# One keyframe a second or so, since training starts anywhere (measured: twice as many random clips a second as with
# one every 250 frames); one thread, since x264 writes other bytes with another number of them.
ENCODER = {"g": "30", "threads": "1"}

Square = tuple[int, int, int, int]  # x0, y0, x1, y1 [px]


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write manifest.jsonl and what it names: clips/ID.mp4 (unless `write.mode=references`) and landmarks/ID.npz.

    Beside it data_card.md and contact_sheet.png.
    """
    output, facts = Path(settings.output), asdict(settings.write)
    clips = read_step(output, "identities")
    write = write_clips
    if settings.write.mode == "references":
        write, facts = refer_to_clips, {"mode": "references"}
    step = Step("write", settings, workers, facts)
    # Who it is and what it is for changes with every other clip, the pixels don't.
    inputs = ({k: v for k, v in clip.items() if k not in ("identity", "split")} for clip in clips)
    records = step.map_clips(write, inputs)
    for folder in ("clips", "landmarks"):
        step.sweep(folder, records)
    step.finish(records)

    about = {clip["id"]: clip for clip in clips}
    written = [(record["clip"], about[record["clip"]["id"]]) for record in records if "clip" in record]
    manifest = [Clip(**{**clip, "identity": of["identity"], "split": of["split"]}) for clip, of in written]
    write_manifest(output / MANIFEST, manifest)
    manifest = read_manifest(output / MANIFEST, allow_outside=True)
    write_contact_sheet(output / "contact_sheet.png", manifest)
    times = [enlargement(of, settings) for _, of in written]
    if enlarged := sum(value > 1 for value in times):
        which = f"{enlarged} of {len(times)} clips are enlarged to {settings.write.size} px"
        note(f"write: {which}, up to {max(times):.1f} times: their truth is soft (track.max_enlarge limits it)")
    write_card(output / "data_card.md", manifest, [of for _, of in written], settings)
    return records


def write_clips(clips: list[Record], settings: DataPrepConfig) -> list[Record]:
    """Cut the clips of one file out, as files of their own."""
    output, size = Path(settings.output), settings.write.size
    crops = [load_arrays(output, TRACKS, clip["id"])["crops"] for clip in clips]
    names = [f"clips/{file_name(clip['id'], '.mp4')}" for clip in clips]
    writers: dict[int, tuple[VideoWriter, ExitStack]] = {}  # only of clips that go on, each takes memory
    with ExitStack() as unfinished:
        for image, places in walk(clips, settings):
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
        landmarks = _save_landmarks(clip, output, boxes[:, :2], size / (boxes[:, 2] - boxes[:, 0]))
        record = _record(clip, name, 0, size, None, landmarks, sha256_of(output / name))
        records.append({**record, "files": [name, *record["files"]]})
    return records


def refer_to_clips(clips: list[Record], settings: DataPrepConfig) -> list[Record]:
    """Name the places of the clips in the original file, with a square that holds the face all along."""
    output = Path(settings.output)
    records = []
    if clips[0].get("interlaced"):
        raise ValueError(f"{clips[0]['source']}: interlaced, which training does not mend: write.mode=clips does")
    for clip in clips:
        square = _still_square(load_arrays(output, TRACKS, clip["id"])["crops"], clip["width"], clip["height"])
        video = os.path.relpath(Path(settings.source.path) / clip["source"], output)
        landmarks = _save_landmarks(clip, output, np.array([square[:2]]), np.ones(1))
        size = square[2] - square[0]
        records.append(_record(clip, video, clip["start_frame"], size, square, landmarks, clip["sha256"]))
    return records


def _still_square(crops: np.ndarray, width: int, height: int) -> Square:
    """The square of whole px around (f, 4) crops, inside of the frame and no larger than its shorter side [px]."""
    low, high = crops[:, :2].min(axis=0), crops[:, 2:].max(axis=0)
    side = int(min(np.ceil((high - low).max()), width, height))
    corner = np.rint((low + high) / 2 - side / 2)
    x, y = (int(v) for v in np.clip(corner, 0, [width - side, height - side]))
    return x, y, x + side, y + side


def _record(
    clip: Record, video: str, start_frame: int, size: int, square: Square | None, landmarks: str | None, sha256: str
) -> Record:
    """A clip's line of the manifest, but for who it is and what it is for."""
    line = {key: clip[key] for key in ("id", "source", "num_frames", "quality")}
    line |= {"fps": float(Fraction(clip["fps"])), "start_frame": start_frame, "width": size, "height": size}
    line |= {"video": video, "crop": square, "landmarks": landmarks, "sha256": sha256}
    return {"source": clip["source"], "clip": line, "files": [landmarks] if landmarks else []}


def _save_landmarks(clip: Record, output: Path, origin: np.ndarray, scale: np.ndarray) -> str | None:
    """Save a clip's landmarks in px of the crop with corner `origin` (f or 1, 2) [px], enlarged by `scale` (f or 1,).

    Returns the file, relative to the output; None if there are no landmarks.
    """
    if clip["trusted"] is None:
        return None
    arrays = load_arrays(output, LANDMARKS, clip["id"])
    points = (arrays["points"] - origin[:, None]) * scale[:, None, None]
    return save_arrays(output, "landmarks", clip["id"], points=points.astype(np.float32), score=arrays["score"])


def _writer(path: Path, clip: Record, settings: DataPrepConfig) -> VideoWriter:
    size = settings.write.size
    path.parent.mkdir(parents=True, exist_ok=True)
    silent = VideoInfo(path, size, size, Fraction(clip["fps"]))
    return VideoWriter(path, source=silent, crf=settings.write.crf, encoder=ENCODER)
