"""Which restored video belongs to which ground truth, by relative name; what does not fit is named, never dropped."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from svfr.data.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoError
from svfr.evaluation.settings import BASELINES
from svfr.inference.batch import Item, find_items, mask_of
from svfr.tasks import TASKS, parse_tasks

TASK_SEPARATORS = re.compile(r"[+,&]")


@dataclass(frozen=True)
class Problem:
    """Something that cannot be compared, in one line."""

    method: str
    task: str
    name: str
    reason: str

    def __str__(self) -> str:
        place = "/".join(part for part in (self.method, self.task, self.name) if part)
        return f"{place}: {self.reason}"


@dataclass(frozen=True)
class Pair:
    """A video to compare with its ground truth.

    Attributes:
        method: of the restored folder, or one of `BASELINES`.
        task: "bfr", "bfr+colorization", ...; "" for baselines, which are the same for every task.
        name: relative name of the ground truth, without suffix.
        truth: the ground truth.
        restored: None for what is computed from the ground truth itself.
        mask: holes of the inpainting task, if known.
    """

    method: str
    task: str
    name: str
    truth: Path
    restored: Path | None
    mask: Path | None = None


@dataclass
class Matches:
    """What `match` found.

    Attributes:
        pairs: ordered by ground truth, then as the methods were given.
        problems: unmatched files and empty folders.
        names: of all ground-truth videos.
        tasks: in canonical order, of all methods.
        methods: as given, baselines first.
    """

    pairs: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)


def parse_restored(arguments: Sequence[str]) -> dict[str, Path]:
    """Folders of results by the name of their method, from `[NAME=]DIR`.

    One folder without a name is called "restored"; several take their folders' names.

    Raises:
        ValueError: a name twice or reserved, or a folder that is not there.
    """
    methods: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not equals or Path(argument).exists():
            path = Path(argument)
            name = "restored" if len(arguments) == 1 else path.resolve().name
        else:
            path = Path(folder)
        if not name or "/" in name or name.startswith(".") or name in BASELINES:
            raise ValueError(f"--restored {argument}: '{name}' cannot be a method's name, give another as NAME=DIR")
        if name in methods:
            raise ValueError(f"--restored {argument}: the name '{name}' is there twice, give another as NAME=DIR")
        if not path.exists():
            raise ValueError(f"--restored {argument}: {path}: no such file or folder")
        methods[name] = path
    return methods


def canonical_task(name: str) -> str | None:
    """ "colorization,bfr" -> "bfr+colorization"; None if the name is not made of tasks."""
    parts = TASK_SEPARATORS.split(name)
    return "+".join(parse_tasks(parts)) if all(part in TASKS for part in parts) else None


def match(
    truth: Path,
    methods: dict[str, Path],
    degraded: Path | None,
    masks: Path | None,
    *,
    output: Path,
    task: str,
    baselines: Sequence[str],
    failed: Sequence[Problem] = (),
) -> Matches:
    """Match folders of results with the ground truth.

    Args:
        truth: folder of videos, frame folders or images; or one of these itself.
        methods: folder of results by name of method, with a subfolder for each task or without.
        degraded: folder of degraded inputs, laid out like the results.
        masks: folder of masks, laid out like the ground truth, or one mask.
        output: folder of this evaluation; what lies in it is no input.
        task: of folders without task subfolders.
        baselines: from `BASELINES`; "degraded" needs its folder.
        failed: restorations of this call; what lies in the place of their results is older, and not compared.

    Raises:
        ValueError: no ground truth.
    """
    problems = list(failed)
    truths = {
        item_name(item): item
        for item in _without_strays(find_items(truth, output, "png"), "ground_truth", "", problems)
    }
    mask_by_name = _find_masks(truths, truth, masks)
    lone = next(iter(truths)) if len(truths) == 1 and next(iter(truths.values())).source == truth else None
    result = Matches(problems=problems, names=list(truths))
    not_restored = {(problem.method, problem.task, problem.name) for problem in failed}
    found: dict[str, list[Pair]] = {name: [] for name in truths}
    for baseline in baselines:
        if baseline != "degraded":
            result.methods.append(baseline)
            for name, item in truths.items():
                found[name].append(Pair(baseline, "", name, item.source, None))
    folders = {**({"degraded": degraded} if degraded and "degraded" in baselines else {}), **methods}
    for method, folder in folders.items():
        result.methods.append(method)
        folders_by_task, ignored = task_folders(folder, task)
        for name in ignored:
            place = "another folder of the same task" if canonical_task(name) else "beside the task folders"
            result.problems.append(Problem(method, "", name, f"{place}, not looked at"))
        for task_name, task_folder in folders_by_task.items():
            if task_name not in result.tasks:
                result.tasks.append(task_name)
            results = _find(method, task_name, task_folder, output, lone, result.problems)
            results = _without_inner_folders(results, truths.keys())
            if results and results.keys().isdisjoint(truths):
                reason = (
                    f"{task_folder}: none of its results is named like a ground truth, such as '{min(results)}'; "
                    f"subfolders of tasks are called {', '.join(TASKS)}, or several of them joined by +"
                )
                result.problems.append(Problem(method, task_name, "", reason))
                continue
            for name in results.keys() - truths.keys():
                result.problems.append(Problem(method, task_name, name, "no ground truth of this name"))
            for name, item in truths.items():
                if (method, task_name, name) in not_restored:
                    continue
                if name not in results:
                    if results:  # else the folder has been named
                        result.problems.append(Problem(method, task_name, name, "no result of this name"))
                    continue
                mask = mask_by_name.get(name) if "inpainting" in task_name else None
                if masks is not None and mask is None and "inpainting" in task_name:
                    reason = f"{masks}: no mask of this name; the columns of holes are left out"
                    result.problems.append(Problem(method, task_name, name, reason))
                found[name].append(Pair(method, task_name, name, item.source, results[name], mask))
    result.tasks.sort(key=_task_order)
    result.methods.sort(key=lambda method: (*BASELINES, method).index(method))
    for pairs in found.values():
        pairs.sort(key=lambda pair: (*BASELINES, pair.method).index(pair.method))
    result.pairs = [pair for pairs in found.values() for pair in pairs]
    result.problems.sort(key=lambda problem: (problem.method, problem.task, problem.name))
    return result


def item_name(item: Item) -> str:
    """Relative name of a video without its suffix; the item is of `find_items` for the format png."""
    return (item.target.with_suffix("") if _is_image(item) else item.target).as_posix()


def _is_image(item: Item) -> bool:
    return not item.source.is_dir() and item.source.suffix.lower() in IMAGE_SUFFIXES


def task_folders(folder: Path, task: str) -> tuple[dict[str, Path], list[str]]:
    """The task subfolders of a folder of results by canonical task, or the folder itself under the default task.

    Returns:
        The folders, and the names of other folders, such as the same task's in another spelling, and of videos.
    """
    children = sorted(folder.iterdir()) if folder.is_dir() else []
    children = [child for child in children if not child.name.startswith(".")]
    tasks = {name: child for child in children if child.is_dir() and (name := canonical_task(child.name)) is not None}
    if not tasks:
        return {task: folder}, []
    others = [child for child in children if child not in tasks.values()]
    return tasks, [child.name for child in others if child.is_dir() or child.suffix.lower() in VIDEO_SUFFIXES]


def _find(
    method: str, task: str, folder: Path, output: Path, lone: str | None, problems: list[Problem]
) -> dict[str, Path]:
    try:
        items = find_items(folder, output, "png")
    except VideoError as error:
        problems.append(Problem(method, task, "", str(error)))
        return {}
    if lone is not None and len(items) == 1:  # one video against one video, whatever their names
        return {lone: items[0].source}
    return {item_name(item): item.source for item in _without_strays(items, method, task, problems)}


def _without_strays(items: list[Item], method: str, task: str, problems: list[Problem]) -> list[Item]:
    """The clips alone where single images are beside them, such as a thumbnail; these are named."""
    clips = [item for item in items if not _is_image(item)]
    if not clips:
        return items
    problems += [
        Problem(method, task, item_name(item), f"{item.source.name}: an image beside the clips, not compared")
        for item in items
        if _is_image(item)
    ]
    return clips


def _without_inner_folders(results: dict[str, Path], names: Collection[str]) -> dict[str, Path]:
    """Results by name where a method puts them one folder deeper, NAME/restored_faces, as CodeFormer and KEEP do."""
    parents = Counter(name.rpartition("/")[0] for name in results)
    found = {}
    for name, path in results.items():
        parent = name.rpartition("/")[0]
        inner = name not in names and parent in names and parents[parent] == 1 and parent not in results
        found[parent if inner else name] = path
    return found


def _find_masks(truths: dict[str, Item], truth: Path, masks: Path | None) -> dict[str, Path]:
    """The mask of each ground truth that has one: one of its name, or the one mask that serves all."""
    if masks is None:
        return {}
    found: dict[str, Path] = {}
    for name, item in truths.items():
        with suppress(VideoError):
            found[name] = mask_of(item, truth, masks) or masks
    # A folder of one PNG a video looks like one mask of many frames to a video without any.
    by_name = masks.is_dir() and any(path != masks for path in found.values())
    return {name: path for name, path in found.items() if not by_name or path != masks}


def _task_order(task: str) -> tuple[int, list[int]]:
    parts = [TASKS.index(part) for part in task.split("+")]
    return len(parts), parts
