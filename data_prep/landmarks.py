"""Step 5: find 68 landmarks in each frame of each clip."""

from pathlib import Path

import numpy as np

from data_prep.networks import landmarker
from data_prep.records import LANDMARKS, TRACKS, Record, load_arrays, read_step, save_arrays, walk
from data_prep.runner import Step
from data_prep.settings import DataPrepConfig
from svfr.data.landmarks import temporal_scores
from svfr.data.linking import face_boxes
from svfr.inference.workers import Workers


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write steps/landmarks.jsonl, the clips with `trusted`, the share of frames whose landmarks have a score above 0.

    steps/landmarks/ID.npz has `points` (f, 68, 2) [px of the file's frames] and `score` (f,).
    """
    clips = read_step(Path(settings.output), "score")
    network = landmarker(settings)
    step = Step("landmarks", settings, workers, {"network": network.sha256 if network else None})
    if network is None:
        return step.finish({**clip, "trusted": None} for clip in clips)
    records = step.map_clips(find_landmarks, clips)
    step.sweep(LANDMARKS, records)
    return step.finish(records)


def find_landmarks(clips: list[Record], settings: DataPrepConfig) -> list[Record]:
    """The landmarks of the clips of one file."""
    network = landmarker(settings)
    assert network is not None
    output = Path(settings.output)
    boxes = [face_boxes(load_arrays(output, TRACKS, clip["id"])["crops"]) for clip in clips]
    points = [np.zeros((clip["num_frames"], 68, 2), np.float32) for clip in clips]
    for image, places in walk(clips, settings):
        if places:
            found = network(image, np.stack([boxes[i][at] for i, at in places]))
            for (i, at), of_face in zip(places, found, strict=True):
                points[i][at] = of_face
    records = []
    for clip, of_clip in zip(clips, points, strict=True):
        scores = temporal_scores(of_clip)
        file = save_arrays(output, LANDMARKS, clip["id"], points=of_clip, score=scores)
        records.append({**clip, "trusted": round(float((scores > 0).mean()), 4), "files": [file]})
    return records
