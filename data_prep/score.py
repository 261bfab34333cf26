"""Step 4: score the quality of each clip on some of its frames, and keep the good ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.networks import scorer
from data_prep.records import TRACKS, PrepareError, Record, load_arrays, read_step, walk
from data_prep.runner import Step, reject
from data_prep.settings import DataPrepConfig
from svfr.data.faces import crop
from svfr.data.quality import SMALLEST
from svfr.files import replacing
from svfr.inference.workers import Workers


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write steps/score.jsonl: the records of the clips that stay, with `quality` (None without a score)."""
    clips = read_step(Path(settings.output), "track")
    network = scorer(settings)
    if network is None:
        return Step("score", settings, workers, {}).finish({**clip, "quality": None} for clip in clips)
    facts = {"frames": settings.quality.frames, "size": settings.write.size, "network": network.sha256}
    step = Step("score", settings, workers, facts)
    records = step.map_clips(score_clips, clips)
    scores = [record["quality"] for record in records if "quality" in record]
    write_histogram(Path(settings.output) / "scores.png", scores, settings.quality.min)
    return step.finish(_select(records, settings))


def score_clips(clips: list[Record], settings: DataPrepConfig) -> list[Record]:
    """The clips of one file with their scores."""
    network = scorer(settings)
    assert network is not None
    crops = [load_arrays(Path(settings.output), TRACKS, clip["id"])["crops"] for clip in clips]
    count = settings.quality.frames  # up to so many, the middles of equal parts
    sampled = [{int((k + 0.5) * clip["num_frames"] / count) for k in range(count)} for clip in clips]
    scores: list[list[float]] = [[] for _ in clips]
    for image, places in walk(clips, settings):
        for i, at in places:
            if at in sampled[i]:
                box = crops[i][at]
                # At its own size: enlarged, any face would score as blurred.
                size = int(np.clip(round(box[2] - box[0]), SMALLEST, settings.write.size))
                scores[i].append(network(crop(image, box, size)))
    return [{**clip, "quality": round(float(np.mean(s)), 4)} for clip, s in zip(clips, scores, strict=True)]


def write_histogram(path: Path, scores: Sequence[float], least: float | None) -> None:
    """Write a histogram of scores in [0, 1] as PNG, with a line at the least one that stays."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PrepareError("matplotlib is not installed: pip install 'svfr[data]'") from error
    figure = Figure(figsize=(7, 4), dpi=100)
    axes = figure.subplots()
    axes.hist(scores, bins=50, range=(0, 1), color="#4477aa")
    if least is not None:
        axes.axvline(least, color="#aa3333")
    title = f"{len(scores)} clips, mean {np.mean(scores) if scores else 0:.3f}"
    axes.set(xlabel="quality (0 worst, 1 best)", ylabel="clips", title=title)
    figure.tight_layout()
    with replacing(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def _select(records: list[Record], settings: DataPrepConfig) -> list[Record]:
    """Records with those below the limits turned into rejections."""
    least, keep = settings.quality.min or 0.0, settings.quality.keep
    scored = [record for record in records if "quality" in record]
    best = {r["id"] for r in sorted(scored, key=lambda record: (-record["quality"], record["id"]))[:keep]}

    def select(record: Record) -> Record:
        if record.get("quality", least) < least:
            reason = f"quality {record['quality']:g} is below quality.min={least:g}"
        elif "quality" in record and record["id"] not in best:
            reason = f"not among the best {keep} (quality.keep)"
        else:
            return record
        return reject("score", record["source"], reason, clip=record["id"])

    return [select(record) for record in records]
