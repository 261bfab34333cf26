"""Step 4: score the quality of each clip on some of its frames, and keep the good ones."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.frames import load_arrays, walk
from data_prep.pictures import histogram
from data_prep.quality import SMALLEST, Arniqa
from data_prep.records import Record, read_step
from data_prep.runner import Rejected, Step, by_source, num_frames, reject
from data_prep.settings import DataPrepConfig
from data_prep.track import KIND
from data_prep.workers import Workers
from svfr.data.faces import crop

PICTURE = "scores.png"


def check(settings: DataPrepConfig) -> None:
    """The network has to be there."""
    if settings.score != "none":
        scorer(settings.networks)


@lru_cache(maxsize=1)
def scorer(networks: str | None) -> Arniqa:
    """The network, loaded once for each process."""
    return Arniqa(Path(networks) if networks else None)


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write steps/score.jsonl: the records of the clips that stay, with `quality` (None without a score)."""
    clips = read_step(Path(settings.output), "track")
    if settings.score == "none":
        step = Step("score", settings, workers, {})
        return step.finish({**clip, "quality": None} for clip in clips)
    facts = {
        "frames": settings.quality.frames,
        "size": settings.write.size,
        "network": scorer(settings.networks).sha256,
    }
    step = Step("score", settings, workers, facts)
    records = step.map(score_clips, by_source(clips), num_frames)
    limits = {"min": settings.quality.min, "keep": settings.quality.keep}
    histogram([r["quality"] for r in records if "quality" in r], limits, Path(settings.output) / PICTURE)
    return step.finish(_select(records, settings))


def score_clips(clips: list[Record], settings: DataPrepConfig) -> list[Record]:
    """The clips of one file with their scores.

    Raises:
        ValueError: it cannot be read.
    """
    network = scorer(settings.networks)
    crops = [load_arrays(Path(settings.output), KIND, clip["id"])["crops"] for clip in clips]
    sampled = [_spread(clip["num_frames"], settings.quality.frames) for clip in clips]
    scores: list[list[float]] = [[] for _ in clips]
    for image, places in walk(Path(settings.source.path) / clips[0]["source"], clips):
        for i, at in places:
            if at in sampled[i]:
                box = crops[i][at]
                # At its own size: enlarged, any face would score as blurred.
                size = int(np.clip(round(box[2] - box[0]), SMALLEST, settings.write.size))
                scores[i].append(network(crop(image, box, size)))
    return [{**clip, "quality": round(float(np.mean(s)), 4)} for clip, s in zip(clips, scores, strict=True)]


def _spread(length: int, count: int) -> set[int]:
    """Up to `count` of 0..length-1, the middles of equal parts."""
    return {int((k + 0.5) * length / count) for k in range(count)}


def _select(records: list[Record], settings: DataPrepConfig) -> list[Record]:
    """Records with those below the limits turned into rejections."""
    least, keep = settings.quality.min or 0.0, settings.quality.keep
    ranked = sorted((r for r in records if "quality" in r), key=lambda record: (-record["quality"], record["id"]))
    best = {record["id"] for record in ranked[:keep]}
    result = []
    for record in records:
        reason = None
        if "quality" in record and record["quality"] < least:
            reason = f"quality {record['quality']:g} is below quality.min={least:g}"
        elif "quality" in record and record["id"] not in best:
            reason = f"not among the best {keep} (quality.keep)"
        rejected = reason and reject(Rejected("score", record["source"], reason, bad=False, clip=record["id"]))
        result.append(rejected or record)
    return result
