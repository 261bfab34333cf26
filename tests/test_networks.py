import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from svfr import networks
from svfr.networks import NETWORKS, NetworkMissing, describe, find, installed_packs, load_by_name
from tests import assets
from tests.servers import serving


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """The rest of a file whose name begins with "ranges", from where the client asks; of others all of it."""
        file, start = Path(self.translate_path(self.path)), self.headers.get("Range", "bytes=0-")[6:-1]
        if not file.name.startswith("ranges"):
            super().do_GET()
            return
        rest = file.read_bytes()[int(start) :]
        self.send_response(206 if rest else 416)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address at which the files of `tmp_path` are served."""
    with serving(partial(Quiet, directory=str(tmp_path))) as address:
        yield address


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, so that neither the user's cache nor the network is touched."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SVFR_NETWORKS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, network in NETWORKS.items():
        if network.url is not None:
            monkeypatch.setitem(NETWORKS, name, replace(network, url="http://127.0.0.1:9/nothing"))
    return home


def known(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, url: str = "http://127.0.0.1:9/") -> None:
    """Make `content` the file that the table expects."""
    entry = replace(NETWORKS[name], sha256=hashlib.sha256(content).hexdigest(), size=len(content), url=url)
    monkeypatch.setitem(NETWORKS, name, entry)


def place(folder: Path, content: bytes = b"x") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / NETWORKS["yunet"].file
    file.write_bytes(content)
    return file


@assets.needs_assets
@pytest.mark.parametrize("name", ["yunet", "edgeface", "pfld"])
def test_the_entry_describes_the_real_file(name: str) -> None:
    entry = NETWORKS[name]
    path = find(name, assets.NETWORKS)
    assert describe(path) == {"file": entry.file, "sha256": entry.sha256, "size": entry.size}


def test_search_order(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, "yunet", b"x")
    in_cache = place(home / ".cache" / "svfr" / "networks")
    assert find("yunet") == in_cache
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    in_cache = place(tmp_path / "cache" / "svfr" / "networks")
    assert find("yunet") == in_cache
    monkeypatch.setenv("SVFR_NETWORKS", str(tmp_path / "variable"))
    assert find("yunet") == in_cache, "a folder that isn't there is passed over"
    in_variable = place(tmp_path / "variable")
    assert find("yunet") == in_variable
    in_folder = place(tmp_path / "folder")
    assert find("yunet", tmp_path / "folder") == in_folder


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    file = place(tmp_path, b"something else")
    with pytest.raises(ValueError, match="sha256 differs") as error:
        find("yunet", tmp_path)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="unknown network 'yolo': choose from yunet"):
        find("yolo")


@pytest.mark.parametrize("name", list(NETWORKS))
def test_what_is_missing_is_said_in_one_line(name: str) -> None:
    with pytest.raises(NetworkMissing) as error:
        find(name)
    line, entry = str(error.value), NETWORKS[name]
    assert "\n" not in line
    size = "size unknown" if entry.size is None else f"{entry.size / 1e6:.1f} MB"
    reasons = ("download failed: offline", f"get {entry.url} and put") if entry.url else ("no permanent address",)
    for part in (name, size, entry.licence, "SVFR_NETWORKS", *reasons, ".onnx" if entry.pack else entry.file):
        assert part in line


def test_files_where_pytorch_keeps_them(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, "yunet", b"x")
    in_cache = place(home / ".cache" / "torch" / "hub" / "checkpoints")
    assert find("yunet") == in_cache
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    in_torch_home = place(tmp_path / "torch" / "hub" / "checkpoints")
    assert find("yunet") == in_torch_home


def test_nothing_is_downloaded_when_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(NetworkMissing, match="not downloaded"):
        find("yunet", download=False)


def test_download_of_a_file(
    tmp_path: Path, home: Path, served: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source.onnx").write_bytes(b"network")
    known(monkeypatch, "yunet", b"network", f"{served}/source.onnx")
    path = find("yunet")
    assert path.read_bytes() == b"network"
    assert path.parent == home / ".cache" / "svfr" / "networks"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no partial files left"
    assert path.stat().st_mode == (tmp_path / "source.onnx").stat().st_mode, "readable by others as any new file"
    written = capsys.readouterr()
    assert NETWORKS["yunet"].file in written.err, "a progress bar that names the file"
    assert served not in written.out + written.err
    (tmp_path / "source.onnx").unlink()
    assert find("yunet") == path


@pytest.mark.parametrize(
    ("path", "reason"),
    [("source.onnx", ".*sha256"), ("longer.onnx", ".*longer than the table"), ("nothing", "the server answered 404")],
)
def test_a_failed_download_leaves_nothing(
    path: str, reason: str, tmp_path: Path, home: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source.onnx").write_bytes(b"netw")
    (tmp_path / "longer.onnx").write_bytes(b"network and more")
    known(monkeypatch, "yunet", b"network", f"{served}/{path}")
    with pytest.raises(NetworkMissing, match=f"download failed: {reason}") as error:
        find("yunet")
    assert "\n" not in str(error.value)
    assert not list((home / ".cache" / "svfr" / "networks").iterdir())


@pytest.mark.parametrize(("name", "here"), [("ranges", b"netw"), ("ranges", b"network"), ("whole", b"netw")])
def test_a_download_goes_on(
    name: str,
    here: bytes,
    tmp_path: Path,
    home: Path,
    served: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_bytes(b"....ork" if name == "ranges" else b"network")  # what is here is not sent again
    known(monkeypatch, "yunet", b"network", f"{served}/{name}")
    cache = home / ".cache" / "svfr" / "networks"
    cache.mkdir(parents=True)
    (cache / f".partial-{NETWORKS['yunet'].file}").write_bytes(here)
    assert find("yunet").read_bytes() == b"network"
    assert [file.name for file in cache.iterdir()] == [NETWORKS["yunet"].file]
    line = capsys.readouterr().err.splitlines()[0]
    for part in (f"{len(here)} bytes are here", NETWORKS["yunet"].licence, str(cache / NETWORKS["yunet"].file)):
        assert part in line


@pytest.mark.parametrize("inner", ["", "antelopev2/", "../../../"])
def test_download_of_a_pack(
    inner: str, tmp_path: Path, home: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "pack.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{inner}scrfd.onnx", b"detector")
        file.writestr(f"{inner}readme.txt", b"")
    before = set(tmp_path.rglob("*.onnx"))
    known(monkeypatch, "insightface/antelopev2", archive.read_bytes(), f"{served}/pack.zip")
    folder = find("insightface/antelopev2")
    cache = home / ".cache" / "svfr" / "networks"
    assert folder == cache / "models" / "antelopev2"
    assert [p.name for p in folder.iterdir()] == ["scrfd.onnx"]
    assert [p.name for p in cache.iterdir()] == ["models"], "no zip left"
    assert set(tmp_path.rglob("*.onnx")) - before == {folder / "scrfd.onnx"}, "nothing outside of its folder"


def test_a_pack_that_is_no_zip_leaves_nothing(
    tmp_path: Path, home: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pack.zip").write_bytes(b"no zip")
    known(monkeypatch, "insightface/antelopev2", b"no zip", f"{served}/pack.zip")
    with pytest.raises(NetworkMissing, match="download failed: File is not a zip file"):
        find("insightface/antelopev2")
    assert not list((home / ".cache" / "svfr" / "networks").iterdir())


@pytest.mark.parametrize("layout", ["models/buffalo_l", "buffalo_l", "models/buffalo_l/buffalo_l", "."])
def test_layouts_of_a_pack(layout: str, tmp_path: Path) -> None:
    root = tmp_path / ("buffalo_l" if layout == "." else "networks")
    (root / layout).mkdir(parents=True)
    with pytest.raises(NetworkMissing, match="holds no ONNX file"):
        find("insightface/buffalo_l", root, download=False)
    assert installed_packs(root) == []
    (root / layout / "det_10g.onnx").touch()
    assert find("insightface/buffalo_l", root, download=False) == root / layout
    assert root / layout in installed_packs(root)


def test_packs_where_insightface_keeps_them(home: Path) -> None:
    for name in ("buffalo_l", "raccoon_s"):
        folder = home / ".insightface" / "models" / name
        folder.mkdir(parents=True)
        (folder / "det.onnx").touch()
    (home / ".insightface" / "models" / "empty").mkdir()
    models = home / ".insightface" / "models"
    assert find("insightface/buffalo_l") == models / "buffalo_l"
    assert installed_packs() == [models / "buffalo_l", models / "raccoon_s"]


def test_auto_takes_what_is_installed_and_loads() -> None:
    def broken() -> str:
        raise ValueError("broken")

    loaders = {"free": lambda: "free", "fallback": lambda: "fallback"}
    assert load_by_name("network", "free", loaders, [lambda: "installed"]) == "free"
    assert load_by_name("network", "auto", loaders, [broken, lambda: "installed"]) == "installed"
    assert load_by_name("network", "auto", loaders, [broken]) == "fallback"
    with pytest.raises(ValueError, match=r"^unknown network 'other': choose from auto, free, fallback, or a file$"):
        load_by_name("network", "other", loaders, [], ", or a file")
