"""The package as others install it: built, put into an environment of its own, used away from the checkout."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import svfr

ROOT = Path(__file__).parent.parent
USE = """
import numpy as np, svfr
pipe = svfr.SVFRPipeline.from_pretrained("demo", device="cpu")
frames = np.zeros((2, pipe.parts.settings.size, pipe.parts.settings.size, 3), np.uint8)
print(svfr.__file__, svfr.__version__, pipe(frames, tasks="bfr").shape == frames.shape)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def test_wheel_works_in_an_environment_of_its_own(built: tuple[Path, Path], tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    python = environment / "bin/python"
    # What it depends on is here already; the package itself is not taken from the checkout.
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", built[1]], check=True)
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([python, "-c", USE], cwd=tmp_path, env=elsewhere, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(site / "svfr/__init__.py"), svfr.__version__, "True"]


def test_archives_hold_the_model_and_nothing_of_the_checkout(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist, zipfile.ZipFile(built[1]) as wheel:
        in_sdist = {name.partition("/")[2] for name in sdist.getnames()}
        in_wheel = set(wheel.namelist())
    assert {"LICENSE", "README.md", "pyproject.toml", "svfr/assets/demo/model_index.json"} <= in_sdist
    assert {"svfr/assets/demo/unet/diffusion_pytorch_model.safetensors", "svfr/assets/networks.json"} <= in_wheel
    assert not [name for name in in_wheel if not name.startswith(("svfr/", f"svfr-{svfr.__version__}.dist-info/"))]


def test_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == svfr.__version__
    assert citation["preferred-citation"]["url"].endswith("2501.01235")
