"""Frames on their way through a file: cut into crops of faces and holes, which chains restore, and pasted together.

What comes before and after, reading and writing, goes on in threads while the networks are at work.
"""

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from svfr.data.faces import crop
from svfr.data.frames import resize, resize_mask, task_input, to_tensor, to_uint8, to_unit
from svfr.data.parsing import FaceParser
from svfr.data.video import Frame
from svfr.inference.chain import Chain
from svfr.inference.keep import KeepRules, put_back
from svfr.inference.masks import crop_hole
from svfr.inference.plan import Hole, PlannedTrack, turned

FILLING = ("inpainting",)  # the tasks of holes outside of faces
Item = TypeVar("Item")
Later = Callable[..., None]  # takes a function and its arguments
Pairs = Iterator[tuple[Frame, np.ndarray | None]]  # frames with their masks
State = list[tuple[int, dict[str, Any], list[np.ndarray]]]  # of chains at work: number, state, results not yet used


@dataclass(eq=False)
class FaceCrop:
    """A face of a frame, or a hole outside of faces: what the networks see of it, and what they make of it."""

    box: np.ndarray | None  # (4,) [px] of the turned frame; None is the whole frame
    landmarks: np.ndarray | None  # (5, 2) [px] of the turned frame
    lq: Tensor  # (3, s, s) in [-1, 1]
    chain: "FaceChain"
    restored: np.ndarray | None = None  # (s, s, 3) uint8


@dataclass(eq=False)
class FaceChain:
    """A track, or a hole, that is restored as a chain of clips."""

    track: PlannedTrack | None  # None: no face
    hole: Hole | None = None  # outside of faces
    waiting: deque[FaceCrop] = field(default_factory=deque)  # crops that no clip has taken yet
    taken: deque[FaceCrop] = field(default_factory=deque)  # those that one has, and not yet restored
    clips: Iterator[Tensor] = field(default_factory=lambda: iter(()))  # as of `restore_clips`
    network: Chain | None = None  # once it is at work
    state: dict[str, Any] | None = None  # of a chain that goes on
    done: deque[np.ndarray] = field(default_factory=deque)  # results of the crops with which it goes on

    @property
    def span(self) -> tuple[int, int]:
        """Indices of its first frame and after its last."""
        if self.hole is not None:
            return self.hole[:2]
        return (0, sys.maxsize) if self.track is None else (self.track.face.start, self.track.face.stop)

    def begin(self, network: Chain) -> None:
        """Take the networks, which go on where an earlier call was."""
        self.network = network
        if self.state is not None:
            network.load_state_dict(self.state)


class HeldFrame(NamedTuple):
    """A frame that waits for its faces."""

    frame: Frame
    hole: np.ndarray | None  # (h, w) bool at the frame's size
    crops: list[FaceCrop]

    def paste(self, keep: KeepRules, blend: float, parser: FaceParser | None) -> np.ndarray:
        """The frame with its crops, of a deep one in 16 bits; a `parser` tells what lies in front of faces."""
        result = self.frame.image if self.frame.deep is None else self.frame.deep
        for each in self.crops:
            assert each.restored is not None
            turns = each.chain.track.turns if each.chain.track else 0
            hole = None if self.hole is None else turned(self.hole, turns)
            rules = keep if each.chain.hole is None else KeepRules(known=True)
            place = turned(result, turns), turned(self.frame.image, turns), each.restored, each.box, hole, rules
            # The result is parsed, as in GFPGAN: of what is too blurred to restore, no network knows the parts.
            visible = parser(each.restored) if parser and each.chain.track else None
            result = turned(put_back(*place, each.landmarks, blend, visible), -turns)
        return result


class FaceStream:
    """Frames, read once, each given when its faces are restored; held until all their chains have taken their clips.

    `restore` begins to restore the crops of a chain, `size` is their side [px]. A stream begins at frame `index`, with
    the `state` of one that came so far.
    """

    def __init__(
        self,
        pairs: Pairs,
        chains: list[FaceChain],
        tasks: tuple[str, ...],
        size: int,
        index: int,
        state: State,
        restore: Callable[[FaceChain, Iterator[Tensor]], Iterator[Tensor]],
    ) -> None:
        self._pairs, self._chains, self._tasks, self._size = pairs, chains, tasks, size
        self._held: deque[HeldFrame] = deque()
        self._later = deque(sorted(chains, key=lambda chain: chain.span))
        self._now: list[FaceChain] = []
        self._index = index  # of the next frame
        for number, network, done in state:
            chains[number].state, chains[number].done = network, deque(done)
        for chain in chains:
            chain.clips = restore(chain, self._inputs_of(chain))

    def __iter__(self) -> Iterator[HeldFrame]:
        while self._held or self._read():
            held = self._held[0]
            for each in held.crops:
                while each.restored is None:
                    for image in to_uint8(to_unit(next(each.chain.clips))):
                        each.chain.taken.popleft().restored = image
                if held.frame.index + 1 == each.chain.span[1]:
                    each.chain.clips, each.chain.network = iter(()), None  # and with it all that the chain holds
            yield self._held.popleft()

    def state(self) -> State:
        """What the frames that are left depend on."""
        made = [(each.chain, each.restored) for held in self._held for each in held.crops if each.restored is not None]
        return [
            (number, chain.network.state_dict(), [restored for of, restored in made if of is chain])
            for number, chain in enumerate(self._chains)
            if chain.network
        ]

    def _read(self) -> bool:
        """Take in the next frame; False at the end."""
        pair = next(self._pairs, None)
        if pair is None:
            return False
        frame, mask = pair
        while self._later and self._later[0].span[0] <= self._index:
            self._now.append(self._later.popleft())
        self._now = [chain for chain in self._now if self._index < chain.span[1]]
        height, width = frame.image.shape[:2]
        hole = None if mask is None else resize_mask(mask, width, height)
        crops = [made for chain in self._now if (made := self._cut(chain, frame, mask, hole))]
        # Of faces that overlap, the smaller is farther away and comes first; holes behind them before all.
        crops.sort(key=lambda each: 0.0 if each.box is None or each.chain.hole else each.box[2] - each.box[0])
        self._held.append(HeldFrame(frame, hole, crops))
        self._index += 1
        return True

    def _inputs_of(self, chain: FaceChain) -> Iterator[Tensor]:
        """What the networks see of a chain's frames; reads on where the next is not there yet."""
        while chain.waiting or (self._index < chain.span[1] and self._read()):
            if chain.waiting:
                chain.taken.append(chain.waiting.popleft())
                yield chain.taken[-1].lq

    def _cut(self, chain: FaceChain, frame: Frame, mask: np.ndarray | None, hole: np.ndarray | None) -> FaceCrop | None:
        size, track, tasks, box, landmarks = self._size, chain.track, self._tasks, None, None
        cut_hole: np.ndarray | None
        if chain.hole is not None and hole is not None:
            box, tasks = chain.hole[2], FILLING
            image, cut_hole = crop(frame.image, box, size), crop_hole(hole, box, size)
        elif track is None:
            image = resize(frame.image, size, size)
            cut_hole = None if mask is None else resize_mask(mask, size, size)
        else:
            at = self._index - track.face.start
            if not track.face.visible[at]:
                return None
            box, landmarks = track.face.boxes[at], track.face.landmarks[at]
            image = crop(turned(frame.image, track.turns), box, size)
            cut_hole = None if hole is None else crop_hole(turned(hole, track.turns), box, size)
        made = FaceCrop(box, landmarks, to_tensor(task_input(image, tasks, cut_hole)), chain)
        if chain.done:
            made.restored = chain.done.popleft()
        else:
            chain.waiting.append(made)
        return made


def ahead(items: Iterator[Item], count: int) -> Generator[Item, None, None]:
    """The same items, which a thread takes up to `count` before they are asked for; their errors come in their place.

    Closed early, at most the item in work is finished, and `items` is closed, too.
    """
    end: Any = object()
    waiting: deque[Future[Item]] = deque()
    thread = ThreadPoolExecutor(1)
    try:
        while True:
            while len(waiting) <= count:
                waiting.append(thread.submit(next, items, end))
            if (item := waiting.popleft().result()) is end:
                return
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
        if close := getattr(items, "close", None):
            with suppress(ValueError):  # at work still: Ctrl-C came before the executor knew of the thread it started
                close()


@contextmanager
def behind(count: int) -> Iterator[Later]:
    """Call functions in a thread, in order, up to `count` of them late; at the block's end all are done.

    An error is raised by a later call, or at the end; none is called after it.
    """
    waiting: deque[Future[None]] = deque()
    thread, failed = ThreadPoolExecutor(1), list[bool]()

    def run(function: Callable[..., None], *arguments: Any) -> None:
        if not failed:
            failed.append(True)
            function(*arguments)
            failed.clear()

    def later(function: Callable[..., None], *arguments: Any) -> None:
        waiting.append(thread.submit(run, function, *arguments))
        while len(waiting) > count:
            waiting.popleft().result()

    try:
        yield later
        while waiting:
            waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)
