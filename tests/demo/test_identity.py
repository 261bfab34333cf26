import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from svfr.demo.identity import ArcFaceLoss, embed, render_crops, train_identity, verification_accuracy
from svfr.models.identity import IResNet


def encoder() -> IResNet:
    torch.manual_seed(0)
    return IResNet(18, (4, 4, 8, 8), embedding_dim=16)


def test_arcface_loss_by_hand() -> None:
    loss = ArcFaceLoss(3, 2, scale=10.0, margin=0.5)
    loss.centres.data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    embedding = torch.tensor([[3.0, 4.0]])  # cosines 0.6, 0.8, -0.6
    own = np.cos(np.arccos(0.8) + 0.5)
    logits = 10 * np.array([0.6, own, -0.6])
    expected = np.log(np.exp(logits).sum()) - logits[1]
    assert loss(embedding, torch.tensor([1])).item() == pytest.approx(expected, rel=1e-5)
    without = ArcFaceLoss(3, 2, scale=10.0, margin=0.0)
    without.centres.data = loss.centres.data
    assert without(embedding, torch.tensor([1])).item() < expected


def test_verification_accuracy_by_hand() -> None:
    people = functional.normalize(torch.eye(8).repeat_interleave(3, dim=0))
    assert verification_accuracy(people, 8) == 1.0
    generator = torch.Generator().manual_seed(0)
    strangers = functional.normalize(torch.randn(60, 32, generator=generator))
    assert verification_accuracy(strangers, 20) == pytest.approx(0.5, abs=0.15)
    # of the odd people, 1 pair of 1 same, 0 of 1 different is told: (e0, e0), (e1, e1) even; odd ones look alike
    alike = torch.eye(4)[[0, 0, 2, 2, 1, 1, 2, 2]]
    assert verification_accuracy(torch.cat([alike[:4], alike[4:6], alike[2:4]]), 4) == 0.5


def test_crops_are_the_same_each_time_and_aligned() -> None:
    crops = render_crops(range(2), 2, 48, first_seed=0)
    assert crops.shape == (2, 2, 112, 112, 3)
    np.testing.assert_array_equal(crops, render_crops(range(2), 2, 48, first_seed=0))
    assert (crops[0, 0] != crops[0, 1]).any()
    assert crops[:, :, 30:90, 30:80].std() > 10


def test_a_few_people_are_learned_by_heart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (5, 1, 7, 7, 3)).repeat(16, axis=2).repeat(16, axis=3)
    crops = np.clip(people + rng.normal(0, 10, (5, 4, 112, 112, 3)), 0, 255).astype(np.uint8)
    network = encoder()
    arguments = {"max_steps": 20, "batch_size": 12, "learning_rate": 1e-3, "seed": 0, "device": torch.device("cpu")}
    train_identity(network, crops, tmp_path / "one", **arguments)  # type: ignore[arg-type]
    losses = [json.loads(line)["loss"] for line in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]
    assert min(losses[-5:]) < losses[0] / 10
    embeddings = embed(network, crops.reshape(-1, 112, 112, 3)).unflatten(0, (5, 4))
    same = torch.einsum("pid,pjd->pij", embeddings, embeddings).mean()
    other = torch.einsum("pid,qjd->pqij", embeddings, embeddings)[~torch.eye(5, dtype=torch.bool)].mean()
    assert 1 - other > 5 * (1 - same)
    again = encoder()
    train_identity(again, crops, tmp_path / "two", **arguments)  # type: ignore[arg-type]
    assert torch.equal(again.fc.weight, network.fc.weight)
