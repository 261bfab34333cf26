"""A Hub of this machine's, for the downloads: what is announced, that they go on, and that damage is noticed."""

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from huggingface_hub import constants

from svfr.models.sources import find_model
from svfr.models.weights import WeightsError
from tests.servers import serving

COMMIT = "0" * 39 + "1"
FILES = {"unet.safetensors": b"w" * 300_000, "config.json": b"{}"}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


class Hub(BaseHTTPRequestHandler):
    damaged = False

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.split("?")[0].rpartition("/")[2]
        if self.path.startswith("/api/"):
            siblings = [
                {"rfilename": name, "size": len(content)}
                | ({"lfs": {"sha256": SHA256[name], "size": len(content), "pointerSize": 1}} if "unet" in name else {})
                for name, content in FILES.items()
            ]
            tree = [{"type": "file", "path": s["rfilename"], "size": s["size"], "oid": "a" * 40} for s in siblings]
            info = {"id": "me/faces", "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}, "tags": []}
            content, headers = (
                json.dumps(tree if "/tree/" in self.path else info).encode(),
                {"Content-Type": "application/json"},
            )
        else:
            content = FILES[name][::-1].replace(b"w", b"x", 1) if self.damaged and "unet" in name else FILES[name]
            headers = {"ETag": f'"{SHA256[name]}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(content))}
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[str]:
    with serving(Hub) as address:
        yield address


@pytest.fixture(autouse=True)
def cache(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    address = hub + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_download_is_announced_and_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "downloading me/faces ({} files, 0.3 MB, licence: mit) to "
    monkeypatch.setattr(Hub, "damaged", True)
    with pytest.raises(WeightsError, match=r"unet\.safetensors has arrived damaged"):
        find_model("me/faces")
    assert line.format(2) in capsys.readouterr().err
    monkeypatch.setattr(Hub, "damaged", False)
    folder = find_model("me/faces")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES
    assert line.format(1) in capsys.readouterr().err, "the rest alone"
    assert find_model("me/faces") == folder
    assert "downloading" not in capsys.readouterr().err
