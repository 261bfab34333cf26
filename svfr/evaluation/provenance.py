"""Where what is compared comes from, read off the files beside it. What is not known is absent, never a default."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from svfr.evaluation.pairs import task_folders
from svfr.evaluation.testset import GROUND_TRUTH, MANIFEST, SETTINGS, read_manifest
from svfr.files import read_json, sha256_of
from svfr.inference.batch import REPORT

# Of a report.json.
KEPT = ("svfr", "weights", "weights_sha256", "untrained", "detector", "settings", "dtype", "packages")
GIB = 2**30  # [bytes]


class Provenance(NamedTuple):
    """What is known of the inputs of an evaluation."""

    test_set: dict[str, Any]  # testset.json and the manifest's sha256; empty if it was not made by make_testset
    rates: dict[Path, float]  # [1/s] by the resolved path of a ground truth, for those whose source has a rate
    restored: dict[str, dict[str, Any]]  # by method and task: weights with their hash, resolved settings, packages
    facts: dict[Path, dict[str, Any]]  # `VideoReport`, by the path of a result


def find_provenance(truth: Path | None, methods: Mapping[str, Path], task: str) -> Provenance:
    """Look beside the ground truth, a folder or one of its videos, and the results; arguments as `match` takes them.

    Raises:
        ValueError: a manifest that is none.
    """
    found = Provenance({}, {}, {}, {})
    places = [truth.resolve(), *truth.resolve().parents] if truth else []
    folder = next((place for place in places if place.name == GROUND_TRUTH), None)
    if folder is not None and (manifest := folder.parent / MANIFEST).is_file():
        found.test_set.update(read_json(folder.parent / SETTINGS), manifest_sha256=sha256_of(manifest))
        rates = {folder / name: entry.get("fps") for name, entry in read_manifest(manifest).items()}
        found.rates.update({path: rate for path, rate in rates.items() if rate is not None})
    for method, results in methods.items():
        for task_name, place in task_folders(results, task)[0].items():
            report = read_json(place / REPORT)
            if {"svfr", "videos"} <= report.keys():  # or it is someone else's
                found.restored.setdefault(method, {})[task_name] = {key: report[key] for key in KEPT if key in report}
                done = [video for video in report["videos"] if video["status"] == "done"]
                found.facts.update({place / video["output"]: video["facts"] for video in done})
    return found


def cost_of(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What restoring took: `VideoReport`s of a method -> passes of a frame through the UNet, seconds, peak memory.

    Returns:
        `unet_runs` and `seconds` a frame, `peak_gib` (the highest) and its `memory` (see `svfr.inference.cost`), and
        `device`; empty without reports, or with ones of an older version.
    """
    costs = [entry["cost"] for entry in facts if "cost" in entry]
    if not costs or len(costs) < len(facts):
        return {}
    num_frames = sum(entry["num_frames"] for entry in facts)
    return {
        "unet_runs": sum(cost["unet_frames"] for cost in costs) / num_frames,
        "seconds": sum(entry["seconds"] for entry in facts) / num_frames,
        "peak_gib": max(cost["peak_memory"] for cost in costs) / GIB,
        **{key: ", ".join(sorted({cost[key] for cost in costs})) for key in ("memory", "device")},
    }
