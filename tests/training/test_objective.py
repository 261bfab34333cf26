"""What a step computes in low precision, and which clips the regularization compares."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from svfr.config import ConfigError
from svfr.training.objective import Objective, TrainedModel
from svfr.training.settings import TrainConfig
from tests import tiny
from tests.training.test_distributed import CONFIG, made_batch

BOTH = slice(0, 2)
SHARED = replace(CONFIG, ulr_noise="shared", batch_size=2)


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


def test_the_model_alone_runs_in_the_precision_of_autocast() -> None:
    components, seen = tiny.pipeline().parts, {}
    for name, layer in (("unet", components.model.unet.conv_out), ("vae", components.vae.encoder.conv_out)):
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output.dtype}))
    objective = Objective(CONFIG, components, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    objective(TrainedModel(components.model), made_batch(BOTH))
    assert seen == {"unet": torch.bfloat16, "vae": torch.float32}


def test_shared_noise_is_one_level_and_one_noise_for_all_clips_of_a_forward_pass() -> None:
    batch = made_batch(BOTH)
    own, shared = (Objective(config, tiny.pipeline().parts).prepare(batch) for config in (CONFIG, SHARED))
    assert len(own.sigma.unique()) == 2
    assert len(shared.sigma.unique()) == 1
    noise = (shared.noisy - shared.clean) / shared.sigma[0]
    torch.testing.assert_close(noise[0], noise[-1], rtol=0, atol=1e-4)
    assert not torch.allclose(shared.clean[0], shared.clean[-1], atol=0.1)
    torch.testing.assert_close(shared.noisy[0], own.noisy[0])  # the first clip's


@pytest.mark.parametrize(("config", "compares_all"), [(CONFIG, True), (SHARED, False)])
def test_shared_noise_takes_its_negatives_from_its_own_process(config: TrainConfig, compares_all: bool) -> None:
    def gather_from_two(rows: Tensor) -> Tensor:
        return torch.cat([rows, rows.flip(0) * 2 + 1])

    components, batch = tiny.pipeline().parts, made_batch(BOTH)
    model = TrainedModel(components.model)
    alone = Objective(config, components)(model, batch)[1]["loss_ulr"]
    of_two = Objective(config, components, gather_from_two)(model, batch)[1]["loss_ulr"]
    assert alone > 0
    assert (of_two != alone) == compares_all


def test_shared_noise_needs_two_clips() -> None:
    with pytest.raises(ConfigError, match="batch_size=1: ulr_noise=shared"):
        replace(SHARED, batch_size=1)
