"""The bundled model as it is shipped."""

from svfr.models.components import DEMO_FOLDER, load_folder

LARGEST = 30 * 2**20  # [bytes], all weights together


def test_bundled_model_loads_strictly_and_holds_no_pickle() -> None:
    components = load_folder(DEMO_FOLDER)
    kinds = {file.suffix for file in DEMO_FOLDER.rglob("*") if file.is_file()}
    assert kinds <= {".json", ".safetensors", ".md", ".yaml", ".png", ".jsonl"}
    weights = list(DEMO_FOLDER.rglob("*.safetensors"))
    assert bool(weights) != components.settings.untrained
    assert sum(file.stat().st_size for file in weights) < LARGEST
