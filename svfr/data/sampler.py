"""Which samples make up which batch, on which process."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClipBatchSampler:
    """Batches of (epoch, index), for ever; each epoch is another permutation of all samples.

    Global batch b, that of all processes together, is samples b B n ... (b + 1) B n - 1 of one endless row, B being
    `batch_size` and n `num_processes`, so it is the same however B n is split. Epochs follow each other without a gap;
    no sample is left out.

    Attributes:
        num_samples: of an epoch.
        batch_size: samples per batch of one process.
        process_index: which part of each global batch is this process's.
        num_processes: that share a global batch.
        seed: of the permutations.
        start: global batches that were done before.

    Raises:
        ValueError: a number out of its range.
    """

    num_samples: int
    batch_size: int
    process_index: int
    num_processes: int
    seed: int
    start: int = 0

    def __post_init__(self) -> None:
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.process_index < self.num_processes:
            raise ValueError(f"process_index is {self.process_index}, of {self.num_processes} processes")

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled_epoch, order = -1, np.empty(0, dtype=np.int64)
        position = (self.start * self.num_processes + self.process_index) * self.batch_size
        while True:
            batch = []
            for place in range(position, position + self.batch_size):
                epoch, offset = divmod(place, self.num_samples)
                if epoch != shuffled_epoch:
                    shuffled_epoch = epoch
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
                batch.append((epoch, int(order[offset])))
            yield batch
            position += self.batch_size * self.num_processes
