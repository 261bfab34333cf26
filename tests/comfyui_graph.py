"""Run a graph in a real ComfyUI: python tests/comfyui_graph.py COMFYUI_DIR RESULT.mp4 (its Python needs svfr, too)."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from svfr.comfyui.__main__ import main as link
from svfr.evaluation.testset import write_clip
from svfr.synthetic import render_clip

PORT = 8199
PATIENCE = 300  # [s]


def ask(path: str, content: Any = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/{path}", data) as answer:
        return json.load(answer)


def main(comfyui: Path, result: Path) -> None:
    link([str(comfyui)])
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder, "clip"), render_clip(2_000_000, 8, 256).frames)
        switches = {"bfr": True, "colorization": False, "inpainting": False}
        paths = {"source": str(Path(folder, "clip")), "target": str(result)}
        graph = {
            "1": {"class_type": "SVFRLoadModel", "inputs": {"weights": "demo", "dtype": "auto"}},
            "2": {"class_type": "SVFRRestoreVideo", "inputs": {"model": ["1", 0], **paths, **switches, "seed": 0}},
        }
        command = [sys.executable, "main.py", "--cpu", "--port", str(PORT)]
        server = subprocess.Popen(command, cwd=comfyui)
        try:
            deadline, number = time.monotonic() + PATIENCE, None
            while time.monotonic() < deadline:
                try:
                    number = number or ask("prompt", {"prompt": graph})["prompt_id"]
                    if history := ask(f"history/{number}"):
                        print(history[number]["status"])
                        return
                except urllib.error.URLError:
                    assert server.poll() is None, "ComfyUI has ended"
                time.sleep(1)
            raise TimeoutError(f"no result after {PATIENCE} s")
        finally:
            server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
