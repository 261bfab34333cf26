"""What a step computes in low precision, and which clips the regularization compares."""

import pytest
import torch
from torch import nn

from svfr.training.objective import Objective, TrainedModel
from tests import tiny
from tests.training.test_distributed import CONFIG, made_batch

BOTH = slice(0, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_run_in_float32_in_low_precision(dtype: torch.dtype) -> None:
    components = tiny.pipeline().parts
    model, seen = components.model, {}
    heads: dict[str, nn.Module | None] = {"x_hat": model.latent_transformer, "landmarks": model.landmark_predictor}

    def keep(name: str) -> None:
        head = heads[name]
        assert head is not None
        head.register_forward_hook(lambda module, inputs, output: seen.update({name: (inputs[0], output)}))

    for name in heads:
        keep(name)
    targets = Objective(CONFIG, components).prepare(made_batch(BOTH))
    with torch.autocast("cpu", dtype):
        outputs = TrainedModel(model)(targets)
    assert outputs.landmarks is not None
    # At 512 px, bfloat16 knows 1 or 2 px, float16 1/4.
    assert (outputs.landmarks != outputs.landmarks.to(dtype).float()).float().mean() > 0.9
    for name, head in heads.items():
        features, output = seen[name]
        assert head is not None
        torch.testing.assert_close(output, head(features.float()), rtol=0, atol=0)
