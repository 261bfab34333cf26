"""Which restored video belongs to which ground truth, by relative name; what does not fit is named, never dropped."""

from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from svfr.data.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoError
from svfr.evaluation.settings import BASELINES, TASK_SEPARATORS
from svfr.inference.batch import Item, find_items, mask_of
from svfr.tasks import TASKS, parse_tasks


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
    """A video to compare with its ground truth."""

    method: str  # of the restored folder, or one of `BASELINES`
    task: str  # "bfr", "bfr+colorization", ...; "" for baselines, which are the same for every task
    name: str  # relative name of the ground truth, without suffix
    truth: Path
    restored: Path | None  # None for what is computed from the ground truth itself
    mask: Path | None = None  # holes of the inpainting task, if known


@dataclass
class Matches:
    """What `match` found."""

    pairs: list[Pair]  # ordered by ground truth, then as the methods were given
    problems: list[Problem]  # unmatched files and empty folders
    names: list[str]  # of all ground-truth videos
    tasks: list[str]  # in canonical order, of all methods
    methods: list[str]  # as given, baselines first


def parse_restored(arguments: Sequence[str]) -> dict[str, Path]:
    """Folders of results by the name of their method, from `[NAME=]DIR`.

    One folder without a name is called "restored"; several take their folders' names. ValueError for a name that is
    there twice or reserved, or a folder that is not there.
    """
    methods: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        path = Path(folder)
        if not equals or Path(argument).exists():
            path = Path(argument)
            name = "restored" if len(arguments) == 1 else path.resolve().name
        if not name or "/" in name or name.startswith(".") or name in BASELINES:
            raise ValueError(f"--restored {argument}: '{name}' cannot be a method's name, give another as NAME=DIR")
        if name in methods:
            raise ValueError(f"--restored {argument}: the name '{name}' is there twice, give another as NAME=DIR")
        if not path.exists():
            raise ValueError(f"--restored {argument}: {path}: no such file or folder")
        methods[name] = path
    return methods


def canonical_task(name: str) -> str | None:
    """ "Colorization,bfr" -> "bfr+colorization"; None if the name is not made of tasks."""
    parts = TASK_SEPARATORS.split(name.lower())
    return "+".join(parse_tasks(parts)) if all(part in TASKS for part in parts) else None


def match(
    truth: Path | None,
    methods: dict[str, Path],
    degraded: Path | None,
    masks: Path | None,
    *,
    output: Path,
    task: str,
    baselines: Sequence[str],
    failed: Sequence[Problem] = (),
) -> Matches:
    """Match folders of results with the ground truth; a ValueError if there is none.

    Args:
        truth: folder of videos, frame folders or images; or one of these itself. None: each result is its own.
        methods: folder of results by name of method, with a subfolder for each task or without.
        degraded: folder of degraded inputs, laid out like the results.
        masks: folder of masks, laid out like the ground truth, or one mask.
        output: of this evaluation; what lies in it is no input.
        task: of folders without task subfolders.
        failed: restorations of this call; what lies in the place of their results is older, and not compared.
    """
    problems = list(failed)
    items = _without_strays(find_items(truth, output, "png"), "ground_truth", "", problems) if truth else []
    truths = {item_name(item): item for item in items}
    lone = item_name(items[0]) if len(items) == 1 and items[0].source == truth else None
    mask_by_name = _find_masks(truths, truth, masks) if truth else {}
    not_restored = {(problem.method, problem.task, problem.name) for problem in failed}
    computed = [baseline for baseline in baselines if baseline != "degraded" and truth]
    pairs = [Pair(baseline, "", name, item.source, None) for baseline in computed for name, item in truths.items()]
    folders = {**({"degraded": degraded} if degraded and "degraded" in baselines else {}), **methods}
    tasks: set[str] = set()
    for method, folder in folders.items():
        folders_by_task, ignored = task_folders(folder, task)
        tasks.update(folders_by_task)
        for name in ignored:
            place = "another folder of the same task" if canonical_task(name) else "beside the task folders"
            problems.append(Problem(method, "", name, f"{place}, not looked at"))
        for task_name, task_folder in folders_by_task.items():
            try:
                found = find_items(task_folder, output, "png")
            except VideoError as error:
                problems.append(Problem(method, task_name, "", str(error)))
                continue
            if truth is None:
                for item in _without_strays(found, method, task_name, problems):
                    truths.setdefault(item_name(item), item)
                    pairs.append(Pair(method, task_name, item_name(item), item.source, item.source))
                continue
            if lone is not None and len(found) == 1:  # one video against one video, whatever their names
                results = {lone: found[0].source}
            else:
                found = _without_strays(found, method, task_name, problems)
                found, doubles = _without_doubles(found, task_folder, truths)
                problems += [Problem(method, task_name, name, reason) for name, reason in doubles.items()]
                not_restored |= {(method, task_name, name) for name in doubles}
                results = {item_name(item): item.source for item in found}
            if results and results.keys().isdisjoint(truths):
                reason = (
                    f"{task_folder}: none of its results is named like a ground truth, such as '{min(results)}'; "
                    f"subfolders of tasks are called {', '.join(TASKS)}, or several of them joined by +; "
                    "folders of a method's own, such as restored_faces, are for --collect"
                )
                problems.append(Problem(method, task_name, "", reason))
                continue
            for name in results.keys() - truths.keys():
                problems.append(Problem(method, task_name, name, "no ground truth of this name"))
            for name, item in truths.items():
                if (method, task_name, name) in not_restored:
                    continue
                if name not in results:
                    problems.append(Problem(method, task_name, name, "no result of this name"))
                    continue
                mask = mask_by_name.get(name) if "inpainting" in task_name else None
                if masks is not None and mask is None and "inpainting" in task_name:
                    reason = f"{masks}: no mask of this name; the columns of holes are left out"
                    problems.append(Problem(method, task_name, name, reason))
                pairs.append(Pair(method, task_name, name, item.source, results[name], mask))
    order = [*BASELINES, *methods]
    places = {name: place for place, name in enumerate(truths)}
    return Matches(
        pairs=sorted(pairs, key=lambda pair: (places[pair.name], order.index(pair.method))),
        problems=sorted(problems, key=lambda problem: (problem.method, problem.task, problem.name)),
        names=list(truths),
        tasks=sorted(tasks, key=lambda name: (name.count("+"), [TASKS.index(part) for part in name.split("+")])),
        methods=sorted({*computed, *folders}, key=order.index),
    )


def item_name(item: Item) -> str:
    """Relative name of a video without its suffix; the item is of `find_items` for the format png."""
    return (item.target.with_suffix("") if _is_image(item) else item.target).as_posix()


def _is_image(item: Item) -> bool:
    return not item.source.is_dir() and item.source.suffix.lower() in IMAGE_SUFFIXES


def task_folders(folder: Path, task: str) -> tuple[dict[str, Path], list[str]]:
    """The task subfolders of a folder of results by canonical task, or the folder itself under the default task.

    Second, the names of other folders, such as the same task's in another spelling, and of videos.
    """
    children = [child for child in sorted(folder.iterdir()) if child.name[0] != "."] if folder.is_dir() else []
    tasks = {name: child for child in children if child.is_dir() and (name := canonical_task(child.name)) is not None}
    if not tasks:
        return {task: folder}, []
    others = [child for child in children if child not in tasks.values()]
    return tasks, [child.name for child in others if child.is_dir() or child.suffix.lower() in VIDEO_SUFFIXES]


def _without_strays(items: list[Item], method: str, task: str, problems: list[Problem]) -> list[Item]:
    """The clips alone where single images are beside them, such as a thumbnail; these are named."""
    clips = [item for item in items if not _is_image(item)]
    for item in items if clips else ():
        if _is_image(item):
            reason = f"{item.source.name}: an image beside the clips, not compared"
            problems.append(Problem(method, task, item_name(item), reason))
    return clips or items


def _without_doubles(items: list[Item], folder: Path, names: Container[str]) -> tuple[list[Item], dict[str, str]]:
    """Results without those that differ in their suffix alone, and why these are none, by their one name."""
    by_name: dict[str, list[Item]] = {}
    for item in items:
        place = item.source.relative_to(folder)
        by_name.setdefault((place if item.source.is_dir() else place.with_suffix("")).as_posix(), []).append(item)
    reasons = {}
    for name, found in by_name.items():
        if len(found) > 1 and name in names:
            files = ", ".join(sorted(item.source.name for item in found))
            reasons[name] = f"{len(found)} results of this name ({files}): leave one of them"
    return [item for name, found in by_name.items() if name not in reasons for item in found], reasons


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
