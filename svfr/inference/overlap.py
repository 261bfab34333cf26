"""Let what comes before go on while what comes after is at work."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
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
            close()
