"""Where a model comes from, and which files it is made of."""

from pathlib import Path

from svfr.models.sources import RELEASED_FILES, SVD_FOLDER, weights_files
from tests import tiny


def test_the_files_of_a_folder_but_hidden_ones(tmp_path: Path) -> None:
    tiny.pipeline().save_pretrained(tmp_path)
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "time").write_text("now")
    files = weights_files(tmp_path)
    assert {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"} < files.keys()
    assert not [name for name in files if "cache" in name]
    assert all(files[name] == tmp_path / name for name in files)


def test_of_the_released_files_those_that_are_read(tmp_path: Path) -> None:
    tiny.write_released(tmp_path, tiny.pipeline(heads=False).parts)
    (tmp_path / SVD_FOLDER / "unet" / "diffusion_pytorch_model.safetensors").write_text("of SVD, not read")
    (tmp_path / SVD_FOLDER / "svd_xt.safetensors").write_text("not read, either")
    files = weights_files(tmp_path)
    assert {*RELEASED_FILES, "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"} < files.keys()
    assert not [name for name in files if name.startswith("unet/diff") or "svd_xt" in name]
