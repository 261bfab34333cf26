import pytest
import torch

from svfr.models.heads import IDProjector, LandmarkPredictor, LatentTransformer


def test_id_projector_has_the_released_keys_and_shapes() -> None:
    shapes = {key: tuple(value.shape) for key, value in IDProjector().state_dict().items()}
    assert shapes == {
        "project1024.weight": (1024, 512, 1, 1),
        "final_norm.weight": (1024,),
        "final_norm.bias": (1024,),
    }


def test_id_tokens_are_normalized_positions_in_reading_order() -> None:
    projector = IDProjector(16, 32).eval()
    features = torch.randn(2, 16, 7, 7)
    tokens = projector(features)
    assert tokens.shape == (2, 49, 32)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 49), atol=1e-5, rtol=0)
    features[1, :, 2, 3] += 5
    changed = (projector(features) - tokens).abs().amax(-1).nonzero().tolist()
    assert changed == [[1, 2 * 7 + 3]]


@pytest.mark.parametrize("size", [1, 2, 8])
def test_latent_transformer_gives_one_feature_a_frame(size: int) -> None:
    head = LatentTransformer(24)
    features = torch.randn(2, 3, 24, size, size)
    out = head(features)
    assert out.shape == (2, 3, 24)
    alone = head(features[1:, 2:])
    torch.testing.assert_close(out[1:, 2:], alone)  # frames do not mix
    shuffled = head(features.flip(-1))
    torch.testing.assert_close(shuffled, out)  # a spatial mean
    assert len(head.blocks) == 2


@pytest.mark.parametrize("size", [1, 3, 8])
def test_landmarks_are_fractions_of_the_frame(size: int) -> None:
    head = LandmarkPredictor(24, hidden_channels=16)
    features = 100 * torch.randn(2, 3, 24, size, size)
    points = head(features)
    assert points.shape == (2, 3, 68, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    torch.testing.assert_close(head(features[1:, 2:]), points[1:, 2:])
    assert sum(isinstance(layer, torch.nn.Linear) for layer in head.mlp) == 5


def test_landmarks_depend_on_where_a_feature_is() -> None:
    torch.manual_seed(0)
    head, features = LandmarkPredictor(8, hidden_channels=16), torch.zeros(1, 1, 8, 8, 8)
    features[..., 0, 0] = 100
    assert (head(features) - head(features.flip(-1))).abs().max() > 1e-3
