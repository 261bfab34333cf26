"""Step 2: decode each file once, find its shots, and cut clips from them."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from data_prep.records import Record, frames_of, read_step
from data_prep.runner import Step, reject
from data_prep.settings import DataPrepConfig
from svfr.data.shots import content_differences, shot_starts
from svfr.files import digest
from svfr.inference.workers import Workers

LONGEST_NAME = 60  # characters of a file's name that its clips' ids begin with


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write steps/cut.jsonl: one record for each clip, the file's with `id`, `start_frame`, `num_frames`, `note`.

    A file that does not decode to its end is bad as a whole.
    """
    files = read_step(Path(settings.output), "ingest")
    step = Step("cut", settings, workers, {"cut": settings.cut})
    return step.finish(step.map(cut_file, {file["source"]: file for file in files}, lambda file: file["num_frames"]))


def cut_file(file: Record, settings: DataPrepConfig) -> list[Record]:
    """The clips of one file."""
    differences = content_differences(frame.image for frame in frames_of(file, settings))
    bounds = [*shot_starts(differences, settings.cut.threshold), len(differences)]
    shots = list(pairwise(bounds))
    facts = {key: value for key, value in file.items() if key not in ("notes", "num_frames")}
    clips = []
    for noted in file["notes"] or [{}]:
        for start, stop in _inside(shots, noted, Fraction(file["fps"]), len(differences)):
            for first, last in _windows(start, stop, settings, still=file["kind"] == "image"):
                clip_id = f"{_stem(file['source'])}-{first:06d}"
                clips.append({**facts, "id": clip_id, "start_frame": first, "num_frames": last - first, "note": noted})
    if not clips:
        reason = f"no shot of at least {settings.cut.clip_frames or settings.cut.min_frames} frames"
        return [reject("cut", file["source"], f"{reason} ({len(differences)} in all)")]
    return clips


def _inside(shots: list[tuple[int, int]], noted: Record, fps: Fraction, end: int) -> Iterator[tuple[int, int]]:
    """The shots' parts inside of the part of the file that is noted."""
    low = 0 if noted.get("start") is None else round(noted["start"] * fps)
    high = end if noted.get("stop") is None else round(noted["stop"] * fps)
    for start, stop in shots:
        if max(start, low) < min(stop, high):
            yield max(start, low), min(stop, high)


def _windows(start: int, stop: int, settings: DataPrepConfig, still: bool) -> Iterator[tuple[int, int]]:
    cut = settings.cut
    if still:
        yield start, stop
    elif cut.clip_frames is None:
        if stop - start >= cut.min_frames:
            yield start, stop
    else:
        for first in range(start, stop - cut.clip_frames + 1, cut.stride or cut.clip_frames):
            yield first, first + cut.clip_frames


def _stem(source: str) -> str:
    """What the ids of a file's clips begin with: its name, in letters that any system takes, and a sum of its path."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in Path(source).stem)
    return f"{name[:LONGEST_NAME]}-{digest([source])[:8]}"
