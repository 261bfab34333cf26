#!/usr/bin/env python
"""Turn raw footage into a training manifest.

    python data_prep/prepare.py --config configs/data_prep.yaml source.path=DIR output=DIR [key=value ...]

The steps ingest, cut, track, score, landmarks, identities and write follow each other; `--steps track,score` runs
these alone. Run again, it does what is left. Exit code: 0 all done, 1 some files were bad (each with its reason in
rejected.jsonl) or nothing was left, 2 the call itself was wrong or the machine failed.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the package data_prep lies

import svfr
from data_prep import cut, identities, ingest, landmarks, score, track, write
from data_prep.networks import detector, landmarker, recognizer, scorer
from data_prep.records import STEPS, PrepareError, Record, collect_rejected
from data_prep.runner import start_workers
from data_prep.settings import DataPrepConfig
from svfr import config
from svfr.inference.processes import Processes
from svfr.inference.workers import Workers

RUN: dict[str, Callable[[DataPrepConfig, Workers], list[Record]]] = {
    name: step.run for name, step in zip(STEPS, (ingest, cut, track, score, landmarks, identities, write), strict=True)
}
# What a step needs. Loaded at the start, so that a missing one stops the call before anything is done.
NETWORKS: dict[str, list[Callable[[DataPrepConfig], object]]] = {
    "track": [detector, recognizer],
    "score": [scorer],
    "landmarks": [landmarker],
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="yaml file of settings")
    parser.add_argument("--quiet", action="store_true", help="show errors and the last line alone")
    parser.add_argument("--steps", default=",".join(STEPS), help="default: %(default)s")
    names = ", ".join(DataPrepConfig.__dataclass_fields__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"settings: {names}")
    return parser.parse_intermixed_args(arguments)


def run(settings: DataPrepConfig, steps: Sequence[str]) -> int:
    """Run steps in their order; returns the exit code."""
    if unknown := [name for name in steps if name not in RUN]:
        raise PrepareError(f"--steps: unknown step '{unknown[0]}': choose from {', '.join(STEPS)}")
    steps = [name for name in STEPS if name in steps]
    for name in steps:
        for load in NETWORKS.get(name, ()):
            load(settings)
    with Processes().alone_in(Path(settings.output)):
        with closing(start_workers(settings)) as workers:
            for name in steps:
                records = RUN[name](settings, workers)
        left_out = collect_rejected(Path(settings.output))
    return report(steps[-1], records, left_out, settings)


def report(step: str, records: Sequence[Record], left_out: Sequence[Record], settings: DataPrepConfig) -> int:
    """Say what came out; returns the exit code."""
    bad = [item for item in left_out if item["bad"]]
    unwanted = Counter(item["step"] for item in left_out if not item["bad"])
    listed = ", ".join(f"{count} in {name}" for name, count in unwanted.items()) or "0"
    where = Path(settings.output) / (write.MANIFEST if step == "write" else f"steps/{step}.jsonl")
    print(f"{where}: {len(records)} entries; bad files: {len(bad)}; left out: {listed}")
    return 1 if bad else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    options = parse_arguments(arguments)
    svfr.quiet = options.quiet
    load = partial(config.load, DataPrepConfig, options.config, options.settings)
    return config.run_command("prepare.py", lambda: run(load(), options.steps.split(",")))


if __name__ == "__main__":
    sys.exit(main())
