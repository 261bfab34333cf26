"""Many inputs: find them, skip what is done, let no bad file stop the rest, keep a record of each."""

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch

from svfr.data.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoError
from svfr.files import read_json, write_json

RECORDS = ".svfr"  # folder of the output that holds a record for each input: what a later run skips by
REPORT = "report.json"


class Item(NamedTuple):
    """An input and its place below the output folder."""

    source: Path
    target: Path  # relative, without regard to the container that the sound may need


class Report(Protocol):
    """Facts of one result: a dataclass such as `svfr.inference.video.VideoReport`."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def output(self) -> Path:
        """Where the result is."""
        ...


CacheKey = Callable[[Item], str]


@dataclass(frozen=True)
class Record:
    """What became of one input."""

    input: str
    status: str  # done | failed
    cache_key: str  # digest of all that the result depends on; a later run with another one does it again
    reason: str | None = None
    trace: str | None = None  # of an error that is ours, not the input's
    output: str | None = None
    facts: dict[str, Any] | None = None


def find_items(source: Path, output: Path, format: str) -> list[Item]:
    """The inputs at a path: a video, an image, a folder of frames, or a folder of such (recursively).

    A folder of images is one video, unless as many folders of clips are beside them.

    Args:
        source: what the user gave.
        output: folder of the results; what lies in it is no input.
        format: "mp4" or "png", of the results.

    Raises:
        VideoError: nothing there.
    """
    if not source.exists():
        raise VideoError(f"{source}: no such file or folder")
    if not source.is_dir() or _is_frame_folder(source):
        items = [Item(source, Path(_target_name(source, format)))]
    else:
        found = _search(source, output.resolve())
        if not found:
            raise VideoError(f"{source}: no videos, images or frame folders in it")
        items = [Item(path, path.relative_to(source).with_name(_target_name(path, format))) for path in found]
    return _without_collisions(items)


def run_items(
    items: Sequence[Item],
    output: Path,
    cache_key: CacheKey,
    process: Callable[[Item], Report],
    show: Callable[[str], None],
    on_done: Callable[[Item], None],
) -> None:
    """Process inputs one after the other and record each, good or bad.

    Args:
        items: the inputs of this process.
        output: folder of the results.
        cache_key: digest of all that the result of an input depends on (see `svfr.files.digest`).
        process: does one.
        show: shows one line to the user.
        on_done: called after each, skipped ones included.
    """
    for item in items:
        key = _key_of(item, cache_key)
        if _is_done(output, item, key):
            show(f"{item.source}: done before, skipped")
        else:
            record = _process_one(item, output, key, process)
            write_json(record_path(output, item), asdict(record))
            for line in ([record.reason] if record.reason else []) + (record.facts or {}).get("notes", []):
                show(f"{item.source}: {line}")
        on_done(item)


def _process_one(item: Item, output: Path, key: str, process: Callable[[Item], Report]) -> Record:
    try:
        (output / item.target).parent.mkdir(parents=True, exist_ok=True)
        report = process(item)
    except Exception as error:  # a fault of ours must not stop the batch either
        cure = "lower decode_chunk_size, clip_length or size, or use dtype=bfloat16"
        reason, trace = describe_failure(error, cure)
        # The file's name once: the caller puts it in front.
        return Record(str(item.source), "failed", key, reason.removeprefix(f"{item.source}: "), trace)
    facts = {name: value for name, value in asdict(report).items() if name != "output"}
    placed = str(report.output.relative_to(output))
    return Record(str(item.source), "done", key, output=placed, facts=facts)


def describe_failure(error: Exception, cure: str) -> tuple[str, str | None]:
    """Why one input failed, for a record.

    Args:
        error: that stopped its work; of the type being handled.
        cure: what to do where memory ran out.

    Returns:
        One line, and the trace if the fault is ours.
    """
    line = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError):
        return line or type(error).__name__, None
    if _is_out_of_memory(error):
        return f"out of memory: {cure}", None
    return f"internal error ({type(error).__name__}: {line[:200]}), trace in the record", traceback.format_exc()


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: an accelerator's, NumPy's, or PyTorch's on the CPU, which has no type for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def collect(items: Iterable[Item], output: Path, cache_key: CacheKey) -> dict[str, Any]:
    """Put the records of all inputs together, whichever process made them.

    Args:
        items: all inputs of the call.
        output: folder of the results.
        cache_key: see `run_items`; a record with another key is "not finished".

    Returns:
        `done` and `failed`, how many there are, and `videos`, a list of the records.
    """
    videos = []
    for item in items:
        record = read_json(record_path(output, item))
        if record.get("cache_key") != _key_of(item, cache_key):
            record = asdict(Record(str(item.source), "failed", "", reason="not finished"))
        videos.append(record)
    failed = sum(video["status"] != "done" for video in videos)
    return {"done": len(videos) - failed, "failed": failed, "videos": videos}


def record_path(output: Path, item: Item) -> Path:
    """Where the record of an input lies."""
    return output / RECORDS / item.target.with_name(item.target.name + ".json")


def mask_of(item: Item, source: Path, mask: Path | None) -> Path | None:
    """The mask of an input: the one of its name in a folder laid out like the inputs, or the given one.

    Raises:
        VideoError: a folder that holds neither frames nor a mask of this name.
    """
    if mask is None or not mask.is_dir():
        return mask
    if item.source != source or not source.is_dir():
        place = item.source.relative_to(source) if source.is_dir() else Path(item.source.name)
        stem = place.name if item.source.is_dir() else place.stem
        for suffix in ("", *sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES)):
            candidate = mask / place.with_name(stem + suffix)
            if candidate.exists():
                return candidate
    if _is_frame_folder(mask):
        return mask
    raise VideoError(f"{mask}: no mask for {item.source.name} in it")


def _key_of(item: Item, cache_key: CacheKey) -> str:
    """The cache key of an input; an empty one, as of nothing done, where a file that it depends on is not there."""
    try:
        return cache_key(item)
    except (ValueError, OSError):
        return ""


def _is_done(output: Path, item: Item, key: str) -> bool:
    record = read_json(record_path(output, item))
    done = record.get("status") == "done" and record.get("cache_key") == key
    return done and (output / record["output"]).exists()


def _is_frame_folder(path: Path) -> bool:
    """Whether a folder is one video: images alone, or more of them than folders that hold clips.

    One or two images beside many clips are a thumbnail or a contact sheet.
    """
    if not path.is_dir():
        return False
    children = [child for child in path.iterdir() if child.name[0] != "."]
    suffixes = [child.suffix.lower() for child in children if child.is_file()]
    images = sum(suffix in IMAGE_SUFFIXES for suffix in suffixes)
    if not images or not VIDEO_SUFFIXES.isdisjoint(suffixes):
        return False
    return images > sum(_holds_media(child) for child in children if child.is_dir())


def _holds_media(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES for file in folder.rglob("[!.]*"))


def _search(folder: Path, output: Path) -> list[Path]:
    found: list[Path] = []
    for child in sorted(folder.iterdir()):
        if child.name.startswith(".") or child.resolve() == output:
            continue
        if child.is_dir():
            try:
                found += [child] if _is_frame_folder(child) else _search(child, output)
            except PermissionError:
                found.append(child)  # fails by itself, with its reason
        elif child.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            found.append(child)
    return found


def _target_name(path: Path, format: str) -> str:
    if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir():
        return f"{path.stem}.png"
    name = path.name if path.is_dir() else path.stem
    return name if format == "png" else f"{name}.mp4"


def _without_collisions(items: list[Item]) -> list[Item]:
    """Inputs that differ in their suffix alone keep it in the name of their result."""
    taken: dict[Path, int] = {}
    for item in items:
        taken[item.target] = taken.get(item.target, 0) + 1
    return [
        item
        if taken[item.target] == 1
        else Item(item.source, item.target.with_name(f"{item.source.name}{item.target.suffix}"))
        for item in items
    ]
