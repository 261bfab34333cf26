"""Results of other methods where their own code leaves them, and their inputs in the form that it reads.

The layouts are those of the repositories' scripts: yangxy/GPEN `demo.py`; jnjaby/KEEP `inference_keep.py`;
sczhou/CodeFormer `inference_codeformer.py`, `inference_colorization.py`, `inference_inpainting.py`; kepengxu/PGTFormer
`inference.py`; fudan-generative-vision/DicFace `scripts/inference.py`, `scripts/inference_color_and_inpainting.py`.
"""

import re
from collections import Counter
from collections.abc import Container, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from svfr import note
from svfr.data.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, probe, read_frames, write_lossless
from svfr.evaluation.pairs import task_folders
from svfr.evaluation.testset import DEGRADED, MANIFEST, read_manifest
from svfr.files import replacing
from svfr.inference.batch import find_items

COLLECTED, VIDEOS = "collected", "videos"  # folders of the output and of a test set
RESTORED = "restored_faces"  # folder in the clip's that holds the results; where it isn't, they lie in the clip's own
CROPPED = "cropped_faces"  # where it is, frames were whole, and each has as many results as faces


class Layout(NamedTuple):
    """What a method writes for a clip; of names without suffix, the group is that of the input."""

    says: str  # in words
    frame: str = "(.+)"  # a result's name
    of_faces: str = frame  # the same of whole frames
    clip: str = "(.+)"  # the folder's name
    is_video: bool = False  # one file a clip


LAYOUTS = {
    "gpen": Layout("CLIP/*_GPEN.png", "(.+)_GPEN", "(.+)_GPEN"),
    "keep": Layout(f"CLIP/{RESTORED}/*.png"),
    # Without -o the folder is called CLIP_0.5. Assumption: of several faces, the first one is the person's.
    "codeformer": Layout(f"CLIP/{RESTORED}/*.png or CLIP/*.png", of_faces="(.+)_00", clip=r"(.+?)(?:_\d\.\d+)?"),
    "dicface": Layout(f"CLIP/{RESTORED}/*.png or CLIP/*.png"),
    "pgtformer": Layout("CLIP.mp4", is_video=True),
}


def collect(arguments: Sequence[str], taken: Container[str], output: Path, task: str, write: bool) -> dict[str, Path]:
    """Gather results of other methods by links, OUTPUT/collected/NAME/TASK/CLIP, and say what was left out.

    The arguments are NAME=DIR each, where the name begins with one of `LAYOUTS`, in any case. The folder has a
    subfolder for each task or none, then it is of `task`, and in it what the method wrote for each clip. Of several
    processes, one is to `write` the links. Gives the folder of links by name of method, as `match` takes them;
    ValueError for an unknown layout, a name twice, or a folder without results of that layout.
    """
    collected: dict[str, Path] = {}
    for argument in arguments:
        name, _, folder = argument.partition("=")
        known = re.fullmatch(rf"({'|'.join(LAYOUTS)})[^/]*", name, re.IGNORECASE)
        if not known or not folder:
            names = ", ".join(LAYOUTS)
            raise ValueError(f"--collect {argument}: give NAME=DIR, where the name begins with one of {names}")
        if name in collected or name in taken:
            raise ValueError(f"--collect {argument}: the name '{name}' is there twice")
        if not Path(folder).is_dir():
            raise ValueError(f"--collect {argument}: no such folder")
        layout = LAYOUTS[known[1].lower()]
        found, left_out = find_results(Path(folder), layout, task)
        if not found:
            raise ValueError(f"--collect {argument}: nothing in it as {name} writes it: {layout.says}")
        collected[name] = output / COLLECTED / name
        if write:
            note(f"--collect {name}: {_describe(found, left_out)}")
            with replacing(collected[name]) as partial:
                for place, file in found.items():
                    (partial / place).parent.mkdir(parents=True, exist_ok=True)
                    (partial / place).symlink_to(file.resolve())
    return collected


def find_results(folder: Path, layout: Layout, task: str) -> tuple[dict[Path, Path], Counter[str]]:
    """The files of a folder that are results, by their place TASK/CLIP/FRAME, and how many there are of other kinds."""
    found: dict[Path, Path] = {}
    folders, others = task_folders(folder, task)
    left_out = Counter(others)
    for task_name, clip in ((name, clip) for name, folder in folders.items() for clip in _visible(folder)):
        if layout.is_video or not clip.is_dir():
            if layout.is_video and clip.suffix.lower() in VIDEO_SUFFIXES and not clip.is_dir():
                found[Path(task_name, clip.name)] = clip
            else:
                left_out[_kind(clip)] += 1
            continue
        results = clip / RESTORED if (clip / RESTORED).is_dir() else clip
        pattern = layout.of_faces if (clip / CROPPED).is_dir() else layout.frame
        clip_name = re.sub(f"^{layout.clip}$", r"\1", clip.name)
        for file in _visible(results):
            frame = re.fullmatch(pattern, file.stem)
            if frame and file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir():
                found[Path(task_name, clip_name, frame[1] + file.suffix)] = file
            else:
                left_out[_kind(file)] += 1
        left_out.update(_kind(other) for other in _visible(clip) if results not in (clip, other))
    return found, left_out


def lossless_videos(testset: Path) -> list[Path]:
    """Write the degraded inputs of a test set as videos, for methods that read nothing else: videos/TASK/NAME.mp4.

    H.264 in RGB without loss. What is there stays. Gives all of them; a ValueError if there are no inputs.
    """
    source, manifest = testset / DEGRADED, testset / MANIFEST
    if not source.is_dir():
        raise ValueError(f"{testset}: no degraded inputs in it, it is no test set")
    entries = read_manifest(manifest) if manifest.is_file() else {}
    rates = {name: Fraction(fps).limit_denominator(1001) for name, entry in entries.items() if (fps := entry["fps"])}
    made = []
    for item in find_items(source, testset / VIDEOS, "png"):
        path = testset / VIDEOS / item.target.parent / f"{item.target.name}.mp4"
        if not path.exists():
            rate = rates.get(Path(*item.target.parts[1:]).as_posix(), probe(item.source).fps)
            write_lossless(path, (frame.image for frame in read_frames(item.source)), rate)
        made.append(path)
    return made


def _visible(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.name[0] != ".")


def _kind(path: Path) -> str:
    """ "000001_COMP.png" -> "*_COMP.png"; a folder's own name."""
    if path.is_dir():
        return f"{path.name}/"
    end = re.search(r"_[^_]*$", path.stem) if path.suffix.lower() in IMAGE_SUFFIXES else None
    return f"*{end[0] if end else ''}{path.suffix}"


def _describe(found: dict[Path, Path], left_out: Counter[str]) -> str:
    taken = Counter(f"{place.parts[0]}: {place.suffix} files" for place in found)
    counts = (", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items())) for kinds in (taken, left_out))
    return "; left out: ".join(filter(None, counts))
