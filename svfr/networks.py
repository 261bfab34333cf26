"""Third-party networks: name, size, sha256 and licence in `assets/networks.json`; find, check and download their files.

None of their files comes with the project. Each network keeps its own licence.
"""

import fcntl
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from svfr import bar, note
from svfr.files import CHUNK, sha256_of

FOLDER_VARIABLE = "SVFR_NETWORKS"  # environment variable naming the folder of networks
PACK_PREFIX = "insightface/"  # names of packs: folders of ONNX files
TIMEOUT = 30  # [s] without a byte until a download counts as failed
MEGABYTE = 1_000_000  # [bytes]
LARGEST = 1000 * MEGABYTE  # of a file whose size the table does not know
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Network:
    """A third-party network, or a pack of them."""

    name: str
    file: str  # that is downloaded; of a pack, the zip
    purpose: str
    size: int | None  # [bytes] of `file`; None if it isn't known
    sha256: str  # of `file`
    licence: str  # of the weights, in words
    url: str | None  # None if `file` has no permanent address
    note: str = ""

    @property
    def pack(self) -> str | None:
        """Name of the pack's folder; None if this is a single file."""
        return self.name.removeprefix(PACK_PREFIX) if self.name.startswith(PACK_PREFIX) else None

    @property
    def terms(self) -> str:
        """Size and licence, in words."""
        size = "size unknown" if self.size is None else f"{self.size / MEGABYTE:.1f} MB"
        return f"{size}, licence: {self.licence}"


NETWORKS = {
    name: Network(name, **entry)
    for name, entry in json.loads((Path(__file__).parent / "assets" / "networks.json").read_text()).items()
}
PACKS = [name for name, network in NETWORKS.items() if network.pack is not None]


class NetworkMissing(FileNotFoundError):
    """A network that is not there and cannot be downloaded; its message is one line that says what to put where."""


def describe(path: Path) -> dict[str, str | int]:
    """Name, sha256 and size [bytes] of a network's file, for reports; of anything else its name."""
    known: dict[str, str | int] = {"file": path.name}
    return known | {"sha256": sha256_of(path), "size": path.stat().st_size} if path.is_file() else known


def find(name: str, folder: Path | None = None, download: bool = True) -> Path:
    """Where a network of the table is: in `folder`, $SVFR_NETWORKS, the user's cache or PyTorch's, else downloaded.

    A file, its sha256 checked; for a pack the folder of its ONNX files, which are not checked (the table knows the
    zip's sha256 only): ROOT/models/NAME or ROOT/NAME in one of these, or ~/.insightface/models/NAME.

    Raises:
        NetworkMissing: it is nowhere and was not, or could not be, downloaded.
        ValueError: `name` is not in the table, or a file has another sha256 than the table's.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network '{name}': choose from {', '.join(NETWORKS)}")
    network = NETWORKS[name]
    places = list(_places(network, folder))
    for place in places:
        if network.pack is not None and any(place.glob("*.onnx")):
            return place
        if network.pack is None and place.is_file():
            if sha256_of(place) != network.sha256:
                raise ValueError(f"{place} is not the {name} network of the table: its sha256 differs; remove it")
            return place
    reason = "not downloaded, as asked"
    if network.url is None:
        reason = "it has no permanent address to download it from"
    elif download:
        try:
            return _download(network)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            reason = f"download failed: {first_line(error)}"
    if network.pack is not None and (empty := [place for place in places if place.is_dir()]):
        reason = f"{empty[0]} holds no ONNX file; {reason}"
    target = network.file if network.pack is None else f"models/{network.pack}/*.onnx"
    get = f"get {network.url} and put" if network.url else "put"
    raise NetworkMissing(
        f"network '{name}' ({network.purpose}, {network.terms}) is missing ({reason}): {get} {target} into the "
        f"networks folder (option networks, or environment variable {FOLDER_VARIABLE})"
    )


def installed_packs(folder: Path | None = None) -> list[Path]:
    """Folders of the InsightFace packs that are already there: the table's first, then any ROOT/models/*."""
    found = [place for name in PACKS for place in _places(NETWORKS[name], folder)]
    for root in [*_roots(folder), Path.home() / ".insightface"]:
        found += sorted(root.glob("models/*/"))
    return [path for path in dict.fromkeys(found) if any(path.glob("*.onnx"))]


def load_by_name(
    kind: str,
    name: str,
    loaders: Mapping[str, Callable[[], Loaded]],
    installed: Iterable[Callable[[], Loaded]],
    more: str = "",
) -> Loaded:
    """Load one of several networks that do the same: that of `loaders` by name, or, for "auto", the first of those that
    may be `installed` already that loads (one that fails is passed over, since nobody named it), else the last.

    A ValueError for another name says their `kind` and the choices, `more` among them; and what the loaders raise.
    """
    if name == "auto":
        for load in installed:
            with suppress(ValueError, NetworkMissing):
                return load()
        name = list(loaders)[-1]
    if name not in loaders:
        raise ValueError(f"unknown {kind} '{name}': choose from auto, {', '.join(loaders)}{more}")
    return loaders[name]()


def first_line(error: Exception, length: int = 200) -> str:
    """The first line of an error's message, cut to a length; its type if it has none."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= length else f"{line[:length]}..."


def _caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _roots(folder: Path | None) -> list[Path]:
    named = [folder, os.environ.get(FOLDER_VARIABLE), _caches() / "svfr" / "networks"]
    return [Path(root) for root in named if root]


def _places(network: Network, folder: Path | None) -> Iterator[Path]:
    """Where a network may be, in the order of the search."""
    roots, pack = _roots(folder), network.pack
    if pack is None:
        torch_home = os.environ.get("TORCH_HOME") or _caches() / "torch"
        yield from (root / network.file for root in [*roots, Path(torch_home) / "hub" / "checkpoints"])
        return
    for root in [*roots, Path.home() / ".insightface"]:
        # antelopev2.zip has its folder inside; unpacked by hand, it is there twice.
        yield from (root / "models" / pack, root / "models" / pack / pack, root / pack, root / pack / pack)
        if root.name == pack:
            yield root


def _download(network: Network) -> Path:
    """Download into the cache, after what an earlier call received; what has its final name is complete and checked."""
    import requests  # here, since it takes 0.2 s and few processes download
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    assert network.url is not None, network.name
    cache = _roots(None)[-1]
    final = cache / network.file if network.pack is None else cache / "models" / network.pack
    cache.mkdir(parents=True, exist_ok=True)
    received = cache / f".partial-{network.file}"
    with received.open("ab") as file, tempfile.TemporaryDirectory(dir=cache, prefix=".unpacked-") as work:
        with suppress(OSError):  # network disks may have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if final.is_file() or any(final.glob("*.onnx")):  # another process was faster
                received.unlink()
                return final
            start = file.tell()
            note(f"downloading {network.file} ({network.terms}; {start} bytes are here) to {final}")
            how = {"stream": True, "timeout": TIMEOUT, "headers": {"Range": f"bytes={start}-"} if start else {}}
            shown = bar(network.size, "B", network.file, initial=start, unit_scale=True, leave=False)
            with shown, requests.get(network.url, **how) as answer:
                if not (start and answer.status_code == 416):  # nothing is left
                    if not answer.ok:
                        raise ValueError(f"the server answered {answer.status_code}")
                    file.seek(file.truncate(start if answer.status_code == 206 else 0))  # else all is sent
                    for data in answer.iter_content(CHUNK):
                        shown.update(file.write(data))
                        if file.tell() > (network.size or LARGEST):  # a server may send without end
                            raise ValueError("the file received is longer than the table says")
            file.flush()
            if sha256_of(received) != network.sha256:
                raise ValueError("the file received has another sha256 than the table's")
            made = received if network.pack is None else _unpack(received, Path(work) / network.pack)
            final.parent.mkdir(exist_ok=True)
            os.replace(made, final)  # fails unless the place of a pack is free or an empty folder
        except (ConnectionError, Timeout, ChunkedEncodingError) as error:  # the next call goes on with it
            silent = isinstance(error, Timeout)
            reason = f"no answer for {TIMEOUT} s" if silent else "offline, or the server cannot be reached"
            raise OSError(reason) from error
        except Exception:
            received.unlink()
            raise
        received.unlink(missing_ok=True)
        return final


def _unpack(archive: Path, folder: Path) -> Path:
    """A new folder of the ONNX files of a zip; only the last part of their names counts, so none lands outside."""
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            if member.filename.endswith(".onnx"):
                member.filename = Path(member.filename).name
                zipped.extract(member, folder)
    return folder
