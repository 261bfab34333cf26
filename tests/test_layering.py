"""Which room may import which (data flows down: no room imports one that stands above it), and which packages."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A room is a folder of svfr/ or a file directly in it. What a room may import beside itself:
PURE = {"torch"}
ARRAYS = {"numpy", "cv2", "PIL", "torch", "skimage"}
ALLOWED: dict[str, tuple[set[str], set[str]]] = {  # room -> (rooms, packages)
    "__init__": ({"models", "inference"}, {"tqdm"}),  # the three classes that it names, once they are asked for
    "tasks": (set(), PURE),
    "diffusion": (set(), PURE),
    "config": (set(), {"omegaconf", "yaml"}),
    "files": (set(), set()),
    "networks": ({"__init__", "files"}, {"requests"}),
    "synthetic": (set(), ARRAYS),
    "models": (
        {"__init__", "tasks", "diffusion", "files", "networks"},
        ARRAYS | {"diffusers", "safetensors", "huggingface_hub", "peft"},
    ),
    "data": (
        {"tasks", "files", "networks", "synthetic"},
        ARRAYS | {"av", "face_alignment", "insightface", "onnxruntime", "torchmetrics"},
    ),
    "metrics": ({"data", "models", "files", "networks"}, ARRAYS | {"lpips", "torch_fidelity", "torchvision"}),
    "inference": (
        {"__init__", "config", "tasks", "diffusion", "files", "networks", "models", "data"},
        ARRAYS | {"diffusers", "huggingface_hub", "safetensors", "tqdm"},
    ),
    "comfyui": ({"tasks", "data", "inference"}, ARRAYS | {"comfy"}),
    "training": (
        {"__init__", "config", "tasks", "diffusion", "files", "models", "data", "metrics", "inference"},
        ARRAYS | {"accelerate", "bitsandbytes", "diffusers", "wandb"},
    ),
    "evaluation": (
        {"__init__", "config", "tasks", "files", "networks", "models", "data", "metrics", "inference"},
        ARRAYS | {"jinja2", "scipy"},
    ),
}
OF_ALL = {
    "svfr",
    *(f"svfr.{name}" for name in ("__version__", "bar", "error", "filling", "note", "quiet")),
}  # what rooms may import of __init__
# Files that may import less, or packages that only some files may import.
NARROWER = {"training/losses.py": (set[str](), PURE)}
ONLY_IN = {
    "av": {
        "data/decoding.py",
        "data/demuxing.py",
        "data/errors.py",
        "data/h264.py",
        "data/other_streams.py",
        "data/pixels.py",
        "data/video_writer.py",
    },
    "omegaconf": {"config.py"},
    "argparse": set[str](),
}
FILES = sorted((ROOT / "svfr").rglob("*.py"))


def name(file: Path) -> str:
    return file.relative_to(ROOT / "svfr").as_posix()


def room(file: Path) -> str:
    return file.relative_to(ROOT / "svfr").parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it, also what only type checkers see."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(file)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "svfr":
            yield f"svfr.{node.attr}"


def room_of(module: str) -> str:
    """ "svfr.data.video.probe" -> "data", "svfr.__version__" -> "__init__"."""
    part = module.split(".")[1] if "." in module else "__init__"
    return part if part in ALLOWED else "__init__"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_imports_are_allowed(file: Path) -> None:
    rooms, packages = NARROWER.get(name(file), ALLOWED[room(file)])
    found = set(imports(file))
    inside = {module for module in found if module.split(".")[0] == "svfr"}
    wrong = {module for module in inside if room_of(module) not in rooms | {room(file)}}
    wrong |= {module for module in inside if room_of(module) == "__init__" and module not in OF_ALL}
    wrong |= {module for module in found - inside if module.split(".")[0] not in packages | sys.stdlib_module_names}
    assert not wrong, f"{name(file)} must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("package", ONLY_IN)
def test_package_is_imported_in_its_own_files_only(package: str) -> None:
    users = {name(file) for file in FILES if package in {module.split(".")[0] for module in imports(file)}}
    assert users <= ONLY_IN[package]


def test_no_device_is_named_in_the_code() -> None:
    for file in FILES:
        literals = {n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant)}
        assert "cuda" not in literals, name(file)


def test_every_room_is_known_and_there_are_few() -> None:
    entries = {entry.name for entry in (ROOT / "svfr").iterdir() if entry.name != "__pycache__"}
    assert len(entries) <= 17
    assert {room(file) for file in FILES} <= ALLOWED.keys()
    assert len(FILES) > 10
