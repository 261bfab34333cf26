"""Step 6: find out which clips show the same person, and make splits that share none."""

import sys
from pathlib import Path

import numpy as np

from data_prep.frames import load_arrays
from data_prep.grouping import Groups, assign_splits, join_alike
from data_prep.records import Record, read_step
from data_prep.runner import Step
from data_prep.settings import DataPrepConfig
from data_prep.track import KIND
from data_prep.workers import Workers


def check(settings: DataPrepConfig) -> None:
    """Nothing is needed beforehand."""


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write steps/identities.jsonl, the clips with `identity` (0, 1, 2, ...) and `split`.

    Clips are of one person if their embeddings are alike or their annotations name the same one. Without a recognition
    network, the clips of a file that no annotation tells apart count as one person. All clips of a file are in the same
    split, too, and so is everybody in it.
    """
    clips = read_step(Path(settings.output), "landmarks")
    people = Groups(len(clips))
    people.join_equal([clip["person"] for clip in clips])
    if settings.recognizer == "none":
        people.join_equal([None if clip["person"] else clip["source"] for clip in clips])
    else:
        arrays = [load_arrays(Path(settings.output), KIND, clip["id"])["embedding"] for clip in clips]
        join_alike(people, np.stack(arrays), settings.identity.threshold)
    identities = people.labels()

    together = Groups(len(clips))
    together.join_equal(identities)
    together.join_equal([clip["source"] for clip in clips])
    shares = {"test": settings.identity.test, "val": settings.identity.val}
    groups = together.labels()
    splits = assign_splits(groups, shares, "train", settings.seed)
    for split in [split for split, share in shares.items() if share > 0 and split not in splits]:
        print(f"identities: split {split} is empty: the clips make only {len(set(groups))} group(s)", file=sys.stderr)

    step = Step("identities", settings, workers, {})
    return step.finish(
        {**clip, "identity": identity, "split": split}
        for clip, identity, split in zip(clips, identities, splits, strict=True)
    )
