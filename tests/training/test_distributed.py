"""Two processes compute what one process does with the whole batch."""

import os
import socket
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, multiprocessing, nn

from svfr.data.dataset import Sample
from svfr.training.loop import make_gather
from svfr.training.objective import Objective, TrainedModel
from svfr.training.settings import TrainConfig
from tests import tiny

VIEWS, FRAMES = 2, 3
CONFIG = TrainConfig(lambda_ulr=0.5, lambda_prior=1.0, ulr_temperature=0.5)


def made_batch(clips: slice) -> Sample:
    """Clips of a made batch of two; the second has fewer reliable landmarks and no reference."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(2, *shape, generator=generator) * 2 - 1

    def pictures(*shape: int) -> Tensor:
        return torch.randint(256, (2, *shape, 3, tiny.SIZE, tiny.SIZE), generator=generator, dtype=torch.uint8)

    batch = {
        "gt": pictures(FRAMES),
        "lq": pictures(VIEWS, FRAMES),
        "task_prompts": torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]]),
        "landmarks": uniform(FRAMES, 68, 2) / 2 + 0.5,
        "landmarks_valid": torch.tensor([[True, True, True], [False, True, False]]),
        "reference": pictures(),
        "has_reference": torch.tensor([True, False]),
        "id_face": uniform(3, 112, 112),
        "video_id": torch.tensor([4, 9]),
        "seed": torch.tensor([123, 456]),
    }
    return Sample(**{name: value[clips] for name, value in batch.items()})


def gradients(accelerator: Accelerator, batch: Sample) -> dict[str, Tensor]:
    components = tiny.pipeline().parts
    components.model.requires_grad_(True).train()
    model = accelerator.prepare(TrainedModel(components.model))
    loss, _ = Objective(CONFIG, components, make_gather(accelerator))(model, batch)
    accelerator.backward(loss)
    named = accelerator.unwrap_model(model).named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def worker(rank: int, port: int, file: str) -> None:
    join(rank, port)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    found = gradients(accelerator, made_batch(slice(rank, rank + 1)))
    if rank == 0:
        torch.save(found, file)
    accelerator.wait_for_everyone()
    PartialState().destroy_process_group()


def join(rank: int, port: int) -> None:
    """Let this process be one of two, on the CPU."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "1"}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one_with_the_double_batch(tmp_path: Path) -> None:
    file = tmp_path / "gradients.pt"
    multiprocessing.spawn(worker, args=(free_port(), str(file)), nprocs=2)
    two = torch.load(file, weights_only=True)
    one = gradients(Accelerator(cpu=True), made_batch(slice(0, 2)))
    assert two.keys() == one.keys()
    largest = max(gradient.abs().max().item() for gradient in one.values())
    for name, gradient in one.items():
        assert torch.allclose(two[name], gradient, rtol=1e-4, atol=1e-5 * largest), name


def test_everything_that_is_trained_gets_a_gradient_and_nothing_that_is_frozen() -> None:
    components = tiny.pipeline().parts
    components.model.requires_grad_(True).train()
    model: nn.Module = TrainedModel(components.model)
    Objective(CONFIG, components)(model, made_batch(slice(0, 2)))[0].backward()
    parameters = dict(components.model.named_parameters())
    assert all(p.grad is not None for p in parameters.values())
    for part in ("latent_transformer.", "landmark_predictor.", "unet.add_embedding.", "id_projector.", "unet.conv_in"):
        gradients = [
            p.grad.abs().max() for name, p in parameters.items() if name.startswith(part) and p.grad is not None
        ]
        assert max(gradients) > 0, part
    reference_weights = parameters["unet.conv_in.weight"].grad
    assert reference_weights is not None
    assert reference_weights[:, 8:].abs().max() > 0
    frozen = [*components.vae.parameters(), *components.id_encoder.parameters()]
    assert all(p.grad is None for p in frozen)


def test_no_reference_means_no_gradient_for_the_id_projector() -> None:
    components = tiny.pipeline().parts
    components.model.requires_grad_(True).train()
    batch = made_batch(slice(1, 2))
    objective = Objective(CONFIG, components)
    assert not objective.prepare(batch).ref.any()
    objective(TrainedModel(components.model), batch)[0].backward()
    assert all(not p.grad.any() for p in components.model.id_projector.parameters() if p.grad is not None)


def test_views_of_a_clip_share_noise_and_depend_on_its_seed_alone() -> None:
    objective = Objective(CONFIG, tiny.pipeline().parts)
    both, second = (objective.prepare(made_batch(clips)) for clips in (slice(0, 2), slice(1, 2)))
    assert both.sigma[0] == both.sigma[1] != both.sigma[2]
    assert torch.equal(both.noisy[0], both.noisy[1])
    assert torch.equal(both.sigma[2:], second.sigma)
    assert torch.allclose(both.noisy[2:], second.noisy, atol=1e-5)


@pytest.mark.parametrize(("lambda_ulr", "lambda_prior"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.1), (0.01, 0.1)])
def test_the_loss_is_the_weighted_sum_of_its_terms(lambda_ulr: float, lambda_prior: float) -> None:
    components = tiny.pipeline().parts
    objective = Objective(TrainConfig(lambda_ulr=lambda_ulr, lambda_prior=lambda_prior), components)
    loss, parts = objective(TrainedModel(components.model), made_batch(slice(0, 2)))
    expected = parts["loss_noise"] + lambda_ulr * parts["loss_ulr"] + lambda_prior * parts["loss_prior"]
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(parts["loss"], expected)
    assert not any(part.requires_grad for part in parts.values())
