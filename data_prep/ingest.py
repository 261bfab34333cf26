"""Step 1: find the files of a data set, look into each, and leave out what is the same twice."""

from dataclasses import asdict
from pathlib import Path

from data_prep.readers import find
from data_prep.records import Record
from data_prep.runner import Step, reject
from data_prep.settings import DataPrepConfig
from svfr.data.decoding import is_interlaced
from svfr.data.video import IMAGE_SUFFIXES, ReadOptions, probe
from svfr.files import fingerprint, sha256_of, sha256_of_all
from svfr.inference.workers import Workers


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write steps/ingest.jsonl: one record for each file.

    `source` (relative to source.path), `sha256` (of a folder of frames: of its files' names and sums), `bytes` (its
    size), `width`, `height` [px], `fps` ("30000/1001"), `kind` (video, image, frames), `interlaced` (whether whole
    pictures are made of its fields) and `notes` (see `data_prep.readers`).
    """
    root = Path(settings.source.path)
    annotations = Path(settings.source.annotations) if settings.source.annotations else None
    found = find(settings.source.collection, root, annotations, Path(settings.output))
    inputs = {  # other bytes have another size or time
        str(item.path.relative_to(root)): {
            **asdict(item),
            "path": str(item.path),
            "stamp": [fingerprint(file) for file in _files(item.path)],
        }
        for item in found
    }
    reading = {"deinterlace": settings.deinterlace, "max_pixels": settings.max_pixels}
    step = Step("ingest", settings, workers, {"collection": settings.source.collection, **reading})
    return step.finish(_without_duplicates(step.map(ingest_file, inputs)))


def ingest_file(found: Record, settings: DataPrepConfig) -> list[Record]:
    """Probe and hash one file."""
    if found["error"]:
        raise ValueError(found["error"])
    path = Path(found["path"])
    info = probe(path, ReadOptions(max_pixels=settings.max_pixels))
    interlaced = info.kind == "video" and settings.deinterlace != "no"
    if interlaced and settings.deinterlace == "auto":
        interlaced = is_interlaced(path, settings.max_pixels)
    source, size = str(path.relative_to(settings.source.path)), path.stat().st_size
    sha256 = sha256_of_all({file.name: file for file in _files(path)}) if path.is_dir() else sha256_of(path)
    record = {"source": source, "sha256": sha256, "bytes": size, "width": info.width, "height": info.height}
    record |= {"fps": str(info.fps), "num_frames": info.num_frames, "kind": info.kind}
    return [record | {"interlaced": interlaced, "notes": found["notes"]}]


def _files(path: Path) -> list[Path]:
    """A file itself, or the pictures of a folder of frames."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != ".")


def _without_duplicates(records: list[Record]) -> list[Record]:
    """Leave out files whose bytes an earlier one has."""
    first: dict[str, str] = {}
    kept = []
    for record in records:
        twin = first.setdefault(record["sha256"], record["source"]) if "sha256" in record else None
        is_first = twin in (None, record.get("source"))
        kept.append(record if is_first else reject("ingest", record["source"], f"the same bytes as {twin}"))
    return kept
