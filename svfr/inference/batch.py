"""Many inputs: find them, skip what is done, let no bad file stop the rest, keep a record of each."""

import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import svfr
from svfr.data.images import are_frames
from svfr.data.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoError, image_files, is_media, kind_of
from svfr.files import is_machine_error, read_json, remove, short_name, walk, write_json
from svfr.inference import processes
from svfr.inference.processes import CALL, RECORDS
from svfr.models.devices import is_out_of_memory

REPORT = "report.json"
SHOWN = 40  # lines of a summary
ENDED = "its process ended: a crash of its decoder, a hang, or not enough memory"


class Item(NamedTuple):
    """An input and its place below the output folder."""

    source: Path
    target: Path  # relative, without regard to the container that the sound may need


CacheKey = Callable[[Item], str]  # digest of all that the result of an input depends on (see `svfr.files.digest`)


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
    call: str | None = None  # in which a watched process ended while it worked on the input (see `watched`)


def find_items(source: Path, output: Path, format: str, skipped: list[Path] | None = None) -> list[Item]:
    """The inputs at a path: a video, an image, a folder of frames, or a folder of such (recursively).

    A folder of images is one video, unless as many folders of clips are beside them. What lies in `output`, the folder
    of the results of a `format` ("mp4" or "png"), is no input. `skipped` takes the files that are none, by name and by
    content.

    Raises:
        VideoError: nothing there.
    """
    if not source.exists():
        raise VideoError(f"{source}: no such file or folder")
    found, others = _search(source, output.resolve())
    if not found:
        raise VideoError(f"{source}: no videos, images or frame folders in it")
    if skipped is not None:
        skipped += others
    places = (path.relative_to(source).parent / _target_name(path, format) for path in found)
    return _without_collisions([Item(*pair) for pair in zip(found, places, strict=True)])


def run_items(
    items: Sequence[Item],
    output: Path,
    cache_key: CacheKey,
    process: Callable[[Item], Any],
    on_done: Callable[[], object],
) -> None:
    """Process the inputs of this process one after the other and record each, good or bad, with its `cache_key`.

    `process` returns facts: a dataclass such as `VideoReport`, with the result's path as `output`. `on_done` is called
    after each, skipped ones included.
    """
    for item in items:
        key, before, call = key_of(item, cache_key), read_json(record_path(output, item)), os.environ.get(CALL)
        is_done = before.get("status") == "done" and before.get("cache_key") == key
        if is_done and (output / before["output"]).exists():
            svfr.note(printable(f"{item.source}: done before, skipped"))
        elif call is not None and before.get("call") == call:
            svfr.error(printable(f"{item.source}: {ENDED}"))
        else:
            # If the process ends, this stands.
            ended = Record(str(item.source), "failed", key, ENDED, call=call)
            write_json(record_path(output, item), asdict(ended))
            processes.progress()
            try:
                record = _process_one(item, output, key, process)
            except BaseException:
                record_path(output, item).unlink(missing_ok=True)
                raise
            finally:
                processes.rest()
            if (now := key_of(item, cache_key)) != key:
                if record.output:
                    remove(output / record.output)
                record = Record(record.input, "failed", now, "changed while it was restored: run the command again")
            write_json(record_path(output, item), asdict(record))
            if record.reason:
                svfr.error(printable(f"{item.source}: {record.reason}"))
            for line in (record.facts or {}).get("notes", []):
                svfr.note(printable(f"{item.source}: {line}"))
        on_done()


def _process_one(item: Item, output: Path, key: str, process: Callable[[Item], Any]) -> Record:
    try:
        (output / item.target).parent.mkdir(parents=True, exist_ok=True)
        facts = asdict(process(item))
    except Exception as error:  # a fault of ours must not stop the batch either
        if is_machine_error(error):
            line = " ".join(str(error).split())
            raise OSError(f"{output}: {line}; make room, and run the same command again") from error
        reason, trace = describe_failure(
            error, "lower memory, decode_chunk_size, clip_length or size, or use dtype=bfloat16"
        )
        # The file's name once: the caller puts it in front.
        return Record(str(item.source), "failed", key, reason.removeprefix(f"{item.source}: "), trace)
    placed = str(facts.pop("output").relative_to(output))
    return Record(str(item.source), "done", key, output=placed, facts=facts)


def describe_failure(error: Exception, cure: str) -> tuple[str, str | None]:
    """Why one input failed, for a record: one line, and the trace if the fault is ours.

    `error`, of the type being handled, stopped its work; `cure` is what to do where memory ran out.
    """
    line = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError):
        return line or type(error).__name__, None
    if is_out_of_memory(error):
        return f"out of memory: {cure}", None
    return f"internal error ({type(error).__name__}: {line[:200]}), trace in the record", traceback.format_exc()


def printable(text: str) -> str:
    """The text with what a terminal might obey, or cannot show, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def collect(items: Iterable[Item], output: Path, cache_key: CacheKey) -> dict[str, Any]:
    """Put the records of all inputs together, whichever process made them; one of another key is "not finished".

    Returns:
        `done` and `failed`, how many there are, `summary` of the numbers, and `videos`, a list of the records.
    """
    videos = []
    for item in items:
        record = read_json(record_path(output, item))
        if record.get("cache_key") != key_of(item, cache_key):
            record = asdict(Record(str(item.source), "failed", "", reason="not finished"))
        videos.append(record)
    counts = {"done": sum(video["status"] == "done" for video in videos)}
    counts["failed"] = len(videos) - counts["done"]
    facts = [video["facts"] for video in videos if video["facts"]]
    sums = {name: sum(of.get(name, 0) for of in facts) for name in ("num_frames", "seconds")}
    sums["notes"] = sum(len(of.get("notes", [])) for of in facts)
    return {**counts, "summary": counts | sums | {"report": str(output / REPORT)}, "videos": videos}


def summary_table(report: Mapping[str, Any]) -> str:
    """What became of each input, as plain text; those that failed first, and of the others as many as fit."""
    rows = [["file", "status", "frames", "faces", "seconds", "notes"]]
    for video in sorted(report["videos"], key=lambda video: video["status"] == "done"):
        facts = video["facts"] or {}
        numbers = [facts.get(name, "-") for name in ("num_frames", "num_tracks", "seconds")]
        numbers.append(len(facts.get("notes", [])))
        words = [f"{number:.1f}" if isinstance(number, float) else str(number) for number in numbers]
        rows.append([printable(video["input"]), video["status"], *words])
    widths = [max(map(len, column)) for column in zip(*rows[:SHOWN], strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows[:SHOWN]]
    return "\n".join([*lines, *([f"... and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else [])])


def record_path(output: Path, item: Item) -> Path:
    """Where the record of an input lies."""
    return output / RECORDS / item.target.with_name(short_name(item.target.name) + ".json")


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
            if (candidate := mask / place.with_name(stem + suffix)).exists():
                return candidate
    if _is_frame_folder(mask):
        return mask
    raise VideoError(f"{mask}: no mask for {item.source.name} in it")


def key_of(item: Item, cache_key: CacheKey) -> str:
    """The cache key of an input; an empty one, as of nothing done, where a file that it depends on is not there."""
    try:
        return cache_key(item)
    except (ValueError, OSError):
        return ""


def _is_frame_folder(path: Path) -> bool:
    """Whether a folder is one video: images alone, or more of them than folders that hold clips, that look like frames.

    One or two images beside many clips are a thumbnail or a contact sheet.
    """
    if not path.is_dir():
        return False
    children = [child for child in path.iterdir() if child.name[0] != "."]
    suffixes = [child.suffix.lower() for child in children if child.is_file()]
    images = sum(suffix in IMAGE_SUFFIXES for suffix in suffixes)
    if not images or not VIDEO_SUFFIXES.isdisjoint(suffixes):
        return False
    inside = (chain.from_iterable(files for _, files in walk(child)) for child in children if child.is_dir())
    return images > sum(any(map(is_media, files)) for files in inside) and are_frames(image_files(path))


def _search(source: Path, output: Path) -> tuple[list[Path], list[Path]]:
    """The inputs at a path, and the files below it that are none."""
    if not source.is_dir() or _is_frame_folder(source):
        return [source], []
    found, there = list[Path](), output.exists()

    def enter(child: Path) -> bool:
        if there and child.samefile(output):
            return False
        with suppress(PermissionError):  # it fails by itself, with its reason
            if not _is_frame_folder(child):
                return True
        found.append(child)
        return False

    files = [child for _, children in walk(source, enter) for child in children if not child.is_dir()]
    media = [file for file in files if is_media(file)]
    return sorted(found + media), sorted(set(files) - set(media))


def _target_name(path: Path, format: str) -> str:
    try:
        is_still = kind_of(path) == "image"
    except (VideoError, OSError):  # of a broken file: by its name
        is_still = path.suffix.lower() in IMAGE_SUFFIXES
    name = path.name if path.is_dir() else path.stem
    return f"{name}.png" if is_still else name if format == "png" else f"{name}.mp4"


def _without_collisions(items: list[Item]) -> list[Item]:
    """Inputs whose results would have one name get a longer one: with their suffix, or else a number."""
    wanted = Counter(item.target for item in items)
    taken, unique = {Path(REPORT), *(target for target, count in wanted.items() if count == 1)}, []
    for source, target in items:
        if wanted[target] > 1 or target == Path(REPORT):
            names = chain([source.name], (f"{source.name}-{number}" for number in count(2)))
            candidates = (target.with_name(name + target.suffix) for name in names)
            target = next(candidate for candidate in candidates if candidate not in taken)
            taken.add(target)
        unique.append(Item(source, target))
    return unique
