"""The rules of `STYLE.md` about which module may import which."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "svfr").rglob("*.py"))
PURE = [
    f for f in FILES if f.relative_to(ROOT / "svfr").parts[0] in ("config", "tasks.py", "diffusion.py", "losses.py")
]
PURE_NAMES = ("config", "tasks", "diffusion", "losses")
ONLY_IN = {  # package -> the files that may import it
    "av": ("svfr/data/compression.py", "svfr/data/h264.py", "svfr/data/video_reader.py", "svfr/data/video_writer.py"),
    "omegaconf": ("svfr/config/load.py",),
    "yaml": ("svfr/config/load.py",),
    "accelerate": ("svfr/train.py", "svfr/train_state.py"),
    "argparse": (),
}
ABOVE_DATA = ("models", "components", "sampling", "pipeline", "train", "diffusion", "losses", "config", "metrics")


def imports(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports anywhere, relative ones resolved."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(ROOT).with_suffix("").parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def starts_with(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", PURE, ids=lambda file: file.name)
def test_pure_modules_import_torch_and_the_standard_library_alone(file: Path) -> None:
    allowed = {*sys.stdlib_module_names, "torch"} | ({"omegaconf", "yaml"} if file.name == "load.py" else set())
    found = set(imports(file))
    inside = {f for f in found if starts_with(f, "svfr")}
    assert {f.split(".")[0] for f in found - inside} <= allowed
    assert {f.split(".")[1] for f in inside if "." in f} <= set(PURE_NAMES)


@pytest.mark.parametrize("package", ONLY_IN)
def test_package_is_imported_in_its_own_files_only(package: str) -> None:
    users = {name(file) for file in FILES if any(starts_with(module, package) for module in imports(file))}
    assert users <= set(ONLY_IN[package])


def test_models_import_neither_data_nor_what_stands_above() -> None:
    forbidden = [f"svfr.{m}" for m in ("data", "components", "sampling", "pipeline", "train", "config", "metrics")]
    for file in (ROOT / "svfr/models").rglob("*.py"):
        assert not [m for m in imports(file) if any(starts_with(m, f) for f in forbidden)], name(file)


def test_data_imports_no_models_nor_what_stands_above() -> None:
    for file in (ROOT / "svfr/data").rglob("*.py"):
        found = [m for m in imports(file) if any(starts_with(m, f"svfr.{f}") for f in ABOVE_DATA)]
        assert not found, name(file)


def test_metrics_take_only_the_arcface_network_from_models() -> None:
    for file in (ROOT / "svfr/metrics").rglob("*.py"):
        found = {m for m in imports(file) if starts_with(m, "svfr.models")}
        assert {m.split(".")[2] for m in found if m.count(".") > 1} <= {"identity", "weights"}, name(file)


def test_pipeline_does_not_import_training() -> None:
    for module in ("pipeline", "sampling", "components"):
        assert not [m for m in imports(ROOT / f"svfr/{module}.py") if starts_with(m, "svfr.training.loop")]


def test_no_device_is_named_in_the_code() -> None:
    for file in FILES:
        literals = {n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant)}
        assert "cuda" not in literals, name(file)


def test_every_file_is_seen() -> None:
    assert len(FILES) > 10
    assert "torch" in set(imports(ROOT / "svfr/diffusion.py"))
