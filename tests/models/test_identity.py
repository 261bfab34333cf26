import pytest
import torch

from svfr.models.identity import IRESNET_LAYERS, IResNet
from tests import tiny


@pytest.mark.parametrize(("depth", "num_keys"), [(18, 187), (34, 331), (50, 475), (100, 925)])
def test_published_key_names(depth: int, num_keys: int) -> None:
    with torch.device("meta"):
        state = IResNet(depth).state_dict()
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    block = {
        "conv1.weight",
        "conv2.weight",
        "prelu.weight",
        *(f"bn{i}.{n}" for i in (1, 2, 3) for n in norm),
    }
    expected = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"}
    expected |= {f"{name}.{n}" for name in ("bn1", "bn2", "features") for n in norm}
    for stage, count in enumerate(IRESNET_LAYERS[depth], start=1):
        expected |= {f"layer{stage}.{i}.{key}" for i in range(count) for key in block}
        expected |= {f"layer{stage}.0.downsample.0.weight"}
        expected |= {f"layer{stage}.0.downsample.1.{n}" for n in norm}
    assert set(state) == expected
    assert len(state) == num_keys
    assert state["fc.weight"].shape == (512, 512 * 7 * 7)


def test_unknown_depth() -> None:
    with pytest.raises(ValueError, match=r"depth 20: choose from 18, 34, 50, 100"):
        IResNet(20)


def test_embedding_and_feature_map() -> None:
    network, faces = tiny.id_encoder(), torch.randn(2, 3, 112, 112).clamp(-1, 1)
    with torch.no_grad():
        seen, alone = network(faces), network(faces[1:])
    assert seen.embedding.shape == (2, 32)
    assert seen.feature_map.shape == (2, 16, 7, 7)
    torch.testing.assert_close(seen.feature_map[1:], alone.feature_map)
    assert (seen.feature_map[0] - seen.feature_map[1]).abs().max() > 0.01
