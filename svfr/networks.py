"""Third-party networks: name, size, sha256 and licence in one table; find, check and download their files.

Nothing of this table is shipped with the project. Each network keeps its own licence.
"""

import http.client
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from svfr.files import sha256_of

FOLDER_VARIABLE = "SVFR_NETWORKS"  # environment variable naming the folder of networks
PACK_PREFIX = "insightface/"  # names of packs: folders of ONNX files
TIMEOUT = 30  # [s] without a byte until a download counts as failed
CHUNK = 1 << 20  # [bytes]
MEGABYTE = 1_000_000  # [bytes]


@dataclass(frozen=True)
class Network:
    """A third-party network, or a pack of them.

    Attributes:
        name: key in `NETWORKS`.
        file: name of the file that is downloaded; of a pack, the zip.
        purpose: what it does here.
        size: [bytes] of `file`; None if it isn't known.
        sha256: of `file`; None if it isn't known: then any file of that name counts, and none is downloaded.
        licence: of the weights, in words.
        url: where `file` is downloaded from; None if it has no permanent address.
    """

    name: str
    file: str
    purpose: str
    size: int | None
    sha256: str | None
    licence: str
    url: str | None

    @property
    def pack(self) -> str | None:
        """Name of the pack's folder; None if this is a single file."""
        return self.name.removeprefix(PACK_PREFIX) if self.name.startswith(PACK_PREFIX) else None


def _insightface_pack(name: str, size: int, sha256: str) -> Network:
    return Network(
        name=PACK_PREFIX + name,
        file=f"{name}.zip",
        purpose="face detection and recognition",
        size=size,
        sha256=sha256,
        licence="non-commercial research only (InsightFace)",
        url=f"https://github.com/deepinsight/insightface/releases/download/v0.7/{name}.zip",
    )


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(
            name="yunet",
            file="face_detection_yunet_2023mar.onnx",
            purpose="face detection",
            size=232_589,
            sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
            # The same bytes are in both; the authors' file is at an immutable address and not in Git LFS.
            licence="MIT (OpenCV Zoo), Apache-2.0 (its authors' repository)",
            url="https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/"
            "0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/yunet_s_640_640.onnx",
        ),
        _insightface_pack("buffalo_l", 288_621_354, "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f"),
        _insightface_pack(
            "antelopev2", 360_662_982, "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5"
        ),
        Network(
            name="edgeface",
            file="edgeface_xs_fp32.onnx",
            purpose="face recognition",
            size=9_134_994,
            sha256="b6b2f0559d7d10c48643988d6c2ee538b44a7352ddc45cab6baa821e561dc71b",
            licence="BSD-3-Clause (Idiap); trained on WebFace, which is for research",
            url=None,  # exported to ONNX from the authors' edgeface_xs_q.pt; nobody hosts the export
        ),
        Network(
            name="pfld",
            file="pfld.onnx",
            purpose="68 facial landmarks",
            size=2_987_921,
            sha256="7d7bbd5c6a1d9272e58d9773898284a1905d872eba9a662df9b5f20f1ba6f83e",
            licence="none stated",
            url="https://raw.githubusercontent.com/cunjian/pytorch_face_landmark/"
            "6f34bf9f034aa2f521952f825e6ccc567deb42d6/onnx/pfld.onnx",
        ),
        Network(
            name="fan",
            file="2DFAN4-11f355bf06.pth.tar",
            purpose="68 facial landmarks",
            size=None,
            sha256="11f355bf0693120222f5955ce3f9dc8fb5763ebb30a47d7906e509490d32e4aa",
            licence="BSD-3-Clause (face-alignment)",
            url="https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
        ),
        Network(
            name="vgg16",
            file="vgg16-397923af.pth",
            purpose="LPIPS, VGG",
            size=553_433_881,
            sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            licence="BSD-3-Clause (torchvision); trained on ImageNet",
            url="https://download.pytorch.org/models/vgg16-397923af.pth",
        ),
        Network(
            name="alexnet",
            file="alexnet-owt-7be5be79.pth",
            purpose="LPIPS, AlexNet",
            size=244_408_911,
            sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            licence="BSD-3-Clause (torchvision); trained on ImageNet",
            url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        ),
        Network(
            name="arniqa",
            file="ARNIQA.pth",
            purpose="image quality, encoder",
            size=112_155_914,
            sha256="ad2022e59b1040d5bab24f9325c10d0215956a2061248a36c15edaec3e60fcd1",
            licence="Apache-2.0 (code; none stated for the weights); trained on KADIS-700k",
            url="https://github.com/miccunifi/ARNIQA/releases/download/weights/ARNIQA.pth",
        ),
        Network(
            name="arniqa-regressor",  # TorchScript, of which only the tensors are read
            file="regressor_koniq10k.pth",
            purpose="image quality, regressor",
            size=19_560,
            sha256="af8f127aca38a8e1082e066b5ee93e533bf5f33aaf9c76b3c31526ef901919e1",
            licence="Apache-2.0 (code; none stated for the weights); trained on KonIQ-10k",
            url="https://github.com/miccunifi/ARNIQA/releases/download/weights/regressor_koniq10k.pth",
        ),
        Network(
            # TF-hub's i3d-kinetics-400 as TorchScript, which is code: it is run only if its sha256 is this one.
            name="i3d",
            file="i3d_torchscript.pt",
            purpose="FVD",
            size=51_235_320,
            sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
            licence="Apache-2.0 (kinetics-i3d), copied by the authors of StyleGAN-V",
            url="https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
        ),
    )
}


class NetworkMissing(FileNotFoundError):
    """A network that cannot be had; its message is one line that says what to put where."""


def cache_folder() -> Path:
    """The folder that downloads go to, in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "svfr" / "networks"


def torch_hub_folder() -> Path:
    """Where PyTorch keeps the networks that it downloads; files of the table are found there, too."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or caches / "torch") / "hub" / "checkpoints"


def describe(path: Path) -> dict[str, str | int]:
    """What a report says of a network's file: its name, sha256 and size [bytes]."""
    return {"file": path.name, "sha256": sha256_of(path), "size": path.stat().st_size}


def find(name: str, folder: Path | None = None, download: bool = True) -> Path:
    """Where a network of the table is: in `folder`, $SVFR_NETWORKS, the user's cache or PyTorch's, else downloaded.

    Packs are also found where InsightFace keeps them, ~/.insightface/models/NAME, and in its layout
    ROOT/models/NAME in each of these folders, as well as in ROOT/NAME.

    Returns:
        The file, its sha256 checked if the table knows it; for a pack the folder that holds its ONNX files, which are
        not checked (the table knows the zip's sha256 only).

    Raises:
        NetworkMissing: it is nowhere and was not, or could not be, downloaded.
        ValueError: `name` is not in the table, or a file has another sha256 than the table's.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network '{name}': choose from {', '.join(NETWORKS)}")
    network = NETWORKS[name]
    empty = None
    for candidate in _candidates(network, folder):
        if network.pack is not None:
            if any(candidate.glob("*.onnx")):
                return candidate
            empty = empty or (candidate if candidate.is_dir() else None)
        elif candidate.is_file():
            if network.sha256 is not None and sha256_of(candidate) != network.sha256:
                raise ValueError(f"{candidate} is not the {name} network of the table: its sha256 differs; remove it")
            return candidate
    reason = "not downloaded, as asked"
    if network.url is None or network.sha256 is None:
        reason = "it has no permanent address to download it from"
    elif download:
        try:
            return _download(network)
        except (OSError, http.client.HTTPException, zipfile.BadZipFile, ValueError) as error:
            reason = f"download failed: {_short(error)}"
    if empty is not None:
        reason = f"{empty} holds no ONNX file; {reason}"
    target = network.file if network.pack is None else f"models/{network.pack}/*.onnx"
    size = "size unknown" if network.size is None else f"{network.size / MEGABYTE:.1f} MB"
    facts = f"{network.purpose}, {size}, licence: {network.licence}"
    get = f"get {network.url} and put" if network.url else "put"
    raise NetworkMissing(
        f"network '{name}' ({facts}) is missing ({reason}): {get} {target} into the "
        f"networks folder (option networks, or environment variable {FOLDER_VARIABLE})"
    )


def installed_packs(folder: Path | None = None) -> list[Path]:
    """Folders of the InsightFace packs that are already there: the table's first, then any ROOT/models/*."""
    known = [network for network in NETWORKS.values() if network.pack is not None]
    found = [candidate for network in known for candidate in _candidates(network, folder)]
    for root in [*_roots(folder), Path.home() / ".insightface"]:
        found += sorted(root.glob("models/*/"))
    return [path for path in dict.fromkeys(found) if any(path.glob("*.onnx"))]


def _roots(folder: Path | None) -> list[Path]:
    named = [Path(folder)] if folder is not None else []
    variable = os.environ.get(FOLDER_VARIABLE)
    return [*named, *([Path(variable)] if variable else []), cache_folder()]


def _candidates(network: Network, folder: Path | None) -> Iterator[Path]:
    pack = network.pack
    for root in _roots(folder):
        if pack is None:
            yield root / network.file
            continue
        # antelopev2.zip has its folder inside; unpacked by hand, it is there twice.
        yield from (root / "models" / pack, root / "models" / pack / pack, root / pack, root / pack / pack)
        if root.name == pack:
            yield root
    if pack is None:
        yield torch_hub_folder() / network.file
    else:
        models = Path.home() / ".insightface" / "models"
        yield from (models / pack, models / pack / pack)


def _download(network: Network) -> Path:
    """Download into the cache; what stands at the final name is always whole and checked."""
    assert network.url is not None, network.name
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as work:
        partial = Path(work) / network.file
        with (
            urllib.request.urlopen(network.url, timeout=TIMEOUT) as response,
            partial.open("wb") as file,
            tqdm(total=network.size, unit="B", unit_scale=True, desc=network.file, leave=False) as bar,
        ):
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if sha256_of(partial) != network.sha256:
            raise ValueError("the file received has another sha256 than the table's")
        if network.pack is None:
            final = cache / network.file
            os.replace(partial, final)
            return final
        unpacked = Path(work) / network.pack
        unpacked.mkdir()
        with zipfile.ZipFile(partial) as archive:
            for member in archive.infolist():
                # Only the last part of a member's name counts, so that nothing lands outside of the folder.
                member_name = Path(member.filename).name
                if member_name.endswith(".onnx"):
                    with archive.open(member) as source, (unpacked / member_name).open("wb") as target:
                        shutil.copyfileobj(source, target)
        final = cache / "models" / network.pack
        final.parent.mkdir(exist_ok=True)
        if not any(final.glob("*.onnx")):  # else another process was faster
            os.replace(unpacked, final)  # fails unless `final` is absent or an empty folder
        return final


def _short(error: Exception) -> str:
    """Why a download failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT} s"
    if isinstance(error, urllib.error.URLError):
        return "offline, or the server cannot be reached"
    return " ".join(str(error).split()) or type(error).__name__
