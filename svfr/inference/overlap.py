"""Let what comes before and after go on while what is between is at work."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

Item = TypeVar("Item")
Later = Callable[..., None]  # takes a function and its arguments


def ahead(items: Iterator[Item], count: int) -> Generator[Item, None, None]:
    """The same items, which a thread takes up to `count` before they are asked for.

    An error of the items is raised where it would have been. Closed early, at most the item in work is finished, and
    `items` is closed, too.
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
