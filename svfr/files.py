"""Files written completely or not at all, and digests that show whether something has changed."""

import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CHUNK = 1 << 20  # [bytes] that are read at once
PARTIAL = ".partial-"  # in the names of what is still being written
LONGEST_NAME, ROOM = 255, 40  # [bytes] of a file's name on Linux; of these, for what is added to it
AT_FDCWD, EXCHANGE = -100, 2  # of Linux's renameat2: paths as the process sees them; RENAME_EXCHANGE
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of network disks without a lock service
NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the disk is full, the quota used up, mounted for reading


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write a file or a folder at; when the block ends well, it takes the place of `path`.

    The place is a hidden path beside it, of the same suffix, with nothing there yet. Until then whatever stands at
    `path` stays. What an error leaves half-written is removed. The folder is made if needed. OSErrors of writing have
    the name of `path`.
    """
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        replace(path, partial)
    except OSError as error:
        if error.filename in (None, str(partial), *map(str, path.parents)):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        remove(partial)


def partial_path(path: Path, key: str | None = None) -> Path:
    """A hidden path beside `path`, of the same suffix, for what is still being written; another one at each call.

    With a key of at most 16 characters it is always the same, for a later call that goes on.
    """
    return path.with_name(f".{short_name(path.stem)}{PARTIAL}{key or secrets.token_hex(4)}{path.suffix}")


def short_name(name: str) -> str:
    """A name that leaves room for what is added to it: a long one is cut, with a digest of the whole at its end."""
    room = LONGEST_NAME - ROOM
    if len(os.fsencode(name)) <= room:
        return name
    return f"{os.fsencode(name)[: room - 17].decode(errors='ignore')}-{digest(name)[:16]}"


def sweep(folder: Path, keep: Collection[Path] = ()) -> None:
    """Remove what killed processes left half-written below a folder in which nobody else writes.

    Of a folder to keep, what is half-written in it is removed.
    """
    for rest in [*folder.rglob(f".*{PARTIAL}*")]:
        if rest not in keep:
            remove(rest)


def replace(path: Path, new: Path) -> None:
    """Move a file or a folder to `path`, in the place of what is there: at no moment nothing stands there."""
    if not path.is_dir():
        os.replace(new, path)
    elif _exchange(path, new):
        remove(new)
    else:
        old = partial_path(path)  # os.replace takes the place of an empty folder only
        os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            os.replace(old, path)
            raise
        remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths at once, where the system can (Linux's renameat2)."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), EXCHANGE) == 0


def is_machine_error(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that nothing can be written, which no other input can mend."""
    while error is not None:
        if getattr(error, "errno", None) in NOT_WRITABLE:  # FFmpeg's errors have one, too
            return True
        error = error.__cause__ or error.__context__
    return False


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there and the system allows it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def walk(root: Path, enter: Callable[[Path], bool] = lambda folder: True) -> Iterator[tuple[Path, list[Path]]]:
    """A folder and those below it for which `enter` says so, with what is in each, without what a leading dot hides.

    Links to folders are followed. Each folder is entered once, under its own name if it lies below `root`, so that
    links may form circles. Any depth is fine. The order is fixed.
    """
    folders, links, seen = [root], list[Path](), set[tuple[int, int]]()
    while folders or links:
        folder = (folders or links).pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        children = sorted(child for child in folder.iterdir() if child.name[0] != ".")
        yield folder, children
        for child in children:
            if child.is_dir() and enter(child):
                (links if child.is_symlink() else folders).append(child)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; an error, an OSError with the file's name, leaves what was at `path` before."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, default=str) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_all(files: Mapping[str, Path]) -> str:
    """The sha256 of many files by name: that of the lines "SHA256  NAME" in the order of names, as sha256sum prints."""
    lines = [f"{sha256_of(files[name])}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def fingerprint(path: Path | None) -> list[str] | None:
    """Path, size and time of a file, or of all in a folder; None if there is none. Changes with what is there."""
    if path is None or not path.exists():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files]
    return [f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}" for file, stat in stats]


def digest(facts: Any) -> str:
    """SHA-256 of JSON-like facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
