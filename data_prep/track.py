"""Step 3: find the faces of each clip and follow each one; every face becomes a clip of its own."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_prep.networks import detector, recognizer
from data_prep.records import TRACKS, Record, read_step, save_arrays, walk
from data_prep.runner import Step, reject
from data_prep.settings import DataPrepConfig
from svfr.data.detectors import Face
from svfr.data.faces import crop, frontality, sharpness
from svfr.data.linking import MARGIN, FaceLinker
from svfr.inference.workers import Workers
from svfr.models.identity import align_face

SHARPNESS_SIDE = 128  # [px] at which faces of all sizes are compared


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write steps/track.jsonl: one record for each face of each clip.

    `id`, `start_frame` and `num_frames` are now the track's; `face`, `detected`, `inside`, `frontality` and
    `sharpness` (see `TrackConfig`) describe it; steps/tracks/ID.npz has `crops` (f, 4), the smoothed squares [px], and
    the mean `embedding`.
    """
    clips = read_step(Path(settings.output), "cut")
    network = recognizer(settings)
    names = {"detector": detector(settings).name, "recognizer": network.sha256 if network else None}
    limits = {"min_frames": settings.cut.min_frames, "clip_frames": settings.cut.clip_frames}
    facts = {**names, **limits, "track": settings.track, "size": settings.write.size}
    step = Step("track", settings, workers, facts)
    records = step.map_clips(track_faces, clips)
    step.sweep(TRACKS, records)
    return step.finish(records)


def track_faces(clips: list[Record], settings: DataPrepConfig) -> list[Record]:
    """Follow the faces of the clips of one file."""
    find, network = detector(settings), recognizer(settings)

    def embed(faces: list[Face], image: np.ndarray | None) -> np.ndarray:
        assert network is not None
        assert image is not None
        return network(np.stack([align_face(image, face.landmarks) for face in faces]))

    linkers = [FaceLinker(float(Fraction(clip["fps"])), embed if network else None) for clip in clips]
    for image, places in walk(clips, settings):
        faces = [_with_sharpness(image, face) for face in find(image)] if places else []
        for i, _ in places:
            noted = clips[i]["note"].get("box")
            linkers[i].add([face for face in faces if _is_noted(face, noted, image)], image)
    return [record for clip, linker in zip(clips, linkers, strict=True) for record in _records(clip, linker, settings)]


def _records(clip: Record, linker: FaceLinker, settings: DataPrepConfig) -> list[Record]:
    tracks = linker.finish()
    if not tracks:
        return [reject("track", clip["source"], "no face", clip=clip["id"])]
    records = []
    for number, linked in enumerate(tracks):
        start, stop = linked.track.start, linked.track.stop
        facts = {
            "id": f"{clip['id']}-{number}",
            "start_frame": clip["start_frame"] + start,
            "num_frames": stop - start,
            "face": round(float(np.median([max(face.box[2:] - face.box[:2]) for face in linked.faces])), 1),
            "detected": round(len(linked.faces) / (stop - start), 3),
            "inside": round(_inside(linked.track.boxes, clip["width"], clip["height"]), 3),
            "frontality": round(float(np.median([frontality(face.landmarks) for face in linked.faces])), 3),
            "sharpness": round(float(np.median([face.sharpness for face in linked.faces])), 1),
        }
        if reason := _why_unwanted({**clip, **facts}, settings):
            records.append(reject("track", clip["source"], reason, clip=facts["id"]))
            continue
        embedding = np.zeros(0, np.float32) if linked.embedding is None else linked.embedding
        file = save_arrays(Path(settings.output), TRACKS, facts["id"], crops=linked.track.boxes, embedding=embedding)
        rest = {key: value for key, value in clip.items() if key != "note"}
        records.append({**rest, **facts, "person": clip["note"].get("person"), "files": [file]})
    return records


def _why_unwanted(facts: Record, settings: DataPrepConfig) -> str | None:
    """Why a track is left out; None if it isn't."""
    least = settings.cut.clip_frames or settings.cut.min_frames
    if facts["num_frames"] < least and facts["kind"] != "image":
        return f"the face is there for {facts['num_frames']} frames, cut asks for {least}"
    for name in ("face", "detected", "inside", "frontality", "sharpness"):
        limit = getattr(settings.track, f"min_{name}")
        if facts[name] < limit:
            return f"{name} {facts[name]:g} is below track.min_{name}={limit:g}"
    times, limit = enlargement(facts, settings), settings.track.max_enlarge.get(settings.source.collection)
    if limit is not None and times > limit:
        collection = settings.source.collection
        return f"enlarged {times:.2f} times, more than track.max_enlarge.{collection}={limit:g}"
    return None


def enlargement(facts: Record, settings: DataPrepConfig) -> float:
    """How many times the crop of a clip is enlarged to `write.size`, median over the clip; below 1 it is reduced."""
    return settings.write.size / (MARGIN * facts["face"])


def _inside(crops: np.ndarray, width: int, height: int) -> float:
    """Mean share of (f, 4) crops that lies inside of the frame."""
    extent = crops[:, 2:] - crops[:, :2]
    within = np.minimum(crops[:, 2:], [width, height]) - np.maximum(crops[:, :2], 0)
    return float((np.maximum(within, 0).prod(axis=1) / extent.prod(axis=1)).mean())


def _with_sharpness(image: np.ndarray, face: Face) -> Face:
    centre, side = (face.box[:2] + face.box[2:]) / 2, max(face.box[2:] - face.box[:2])
    square = np.concatenate([centre - side / 2, centre + side / 2])
    return replace(face, sharpness=sharpness(crop(image, square, SHARPNESS_SIDE)))


def _is_noted(face: Face, box: list[float] | None, image: np.ndarray) -> bool:
    """Whether the middle of a face lies in the box that the annotations name."""
    if box is None:
        return True
    x, y = (face.box[:2] + face.box[2:]) / 2 / (image.shape[1], image.shape[0])
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]
