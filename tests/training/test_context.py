"""Training sees what inference does: known first frames, and references of the model's own making."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from svfr.config import ConfigError
from svfr.data.alignment import five_points
from svfr.data.dataset import Sample
from svfr.data.frames import to_tensor, to_uint8, to_unit
from svfr.inference.pipeline import SVFRPipeline
from svfr.models.components import Components
from svfr.models.sources import load_folder
from svfr.training.context import draw_context
from svfr.training.loop import train
from svfr.training.objective import Objective, Targets, TrainedModel
from svfr.training.settings import DataConfig, TrainConfig
from tests import tiny
from tests.runs import config, metrics, weights
from tests.training.test_distributed import FRAMES, VIEWS, made_batch

BOTH = slice(0, 2)
ALWAYS: dict[str, Any] = {"context_frames": 1, "context_share": 1.0, "max_context": 2, "data": DataConfig(num_frames=3)}


def use_only(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All known frames are clean, degraded, or the model's own."""
    for name in ("DEGRADED", "OWN"):
        monkeypatch.setattr(f"svfr.training.context.{name}", float(name == kind))


def looked_back(components: Components | None = None, batch: Sample | None = None, **settings: Any) -> Targets:
    components, batch = components or tiny.pipeline().parts, batch or made_batch(BOTH)
    objective = Objective(TrainConfig(**(ALWAYS | settings)), components)
    return objective.look_back(TrainedModel(components.model), objective.prepare(batch), batch)


def looked_back_own(components: Components, batch: Sample) -> Tensor:
    """(n, 2, c, h, w) what the model makes of the first two frames in one step, without a reference."""
    before = Objective(TrainConfig(), components).prepare(batch)
    zeros = torch.zeros_like(before.clean[:, :2])
    tokens, sigma = torch.zeros(len(zeros), tiny.TOKENS, tiny.TOKEN_DIM), torch.full_like(before.sigma, 20.0)
    with torch.no_grad():
        return components.model(zeros, before.lq[:, :2], zeros, tokens, sigma, before.task_prompt).denoised


def test_known_frames_show_their_clean_latents_as_lq_and_as_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    use_only("clean", monkeypatch)
    components = tiny.pipeline().parts
    before = Objective(TrainConfig(), components).prepare(made_batch(BOTH))
    after = looked_back(components)
    counts = after.known.sum(dim=1)
    assert set(counts.tolist()) <= {1, 2}
    assert torch.equal(counts[0::VIEWS], counts[1::VIEWS])  # all views of a clip
    assert not (after.known[:, 1:] & ~after.known[:, :-1]).any()  # the first frames
    seen = before.clean / components.vae.config.scaling_factor
    for view, known in enumerate(after.known):
        torch.testing.assert_close(after.lq[view][known], seen[view][known])
        torch.testing.assert_close(after.ref[view][known], seen[view][known])
        torch.testing.assert_close(after.lq[view][~known], before.lq[view][~known])
        assert all(torch.equal(ref, before.ref[view]) for ref in after.ref[view][~known])
    torch.testing.assert_close(after.noisy, before.noisy)


def test_share_and_number_of_known_frames_are_the_settings() -> None:
    settings, clean = TrainConfig(context_frames=1), torch.zeros(2000, 5, 1, 4, 4)
    batch = made_batch(BOTH)._replace(seed=torch.arange(1000))
    _, known = draw_context(settings, clean, clean, batch)
    counts = known.sum(dim=1)[::VIEWS]
    assert float((counts > 0).float().mean()) == pytest.approx(0.3, abs=0.04)
    assert [float((counts == n).float().mean()) for n in (1, 2, 3)] == pytest.approx([0.1] * 3, abs=0.03)
    _, of_two_frames = draw_context(settings, clean[:, :2], clean, batch)
    assert of_two_frames.sum(dim=1).max() == 1  # one is always left to restore


def test_some_context_is_mildly_degraded_and_some_is_the_models_own_result(monkeypatch: pytest.MonkeyPatch) -> None:
    components, batch = tiny.pipeline().parts, made_batch(BOTH)
    clean = Objective(TrainConfig(), components).prepare(batch).clean
    seen = clean / components.vae.config.scaling_factor
    use_only("DEGRADED", monkeypatch)
    degraded = looked_back(components, batch)
    for view, known in enumerate(degraded.known):
        change = (degraded.lq[view] - seen[view])[known].std() / seen[view][known].std()
        assert 0 < change < 1.2
    torch.testing.assert_close(degraded.lq[0][degraded.known[0]], degraded.lq[1][degraded.known[1]])

    use_only("OWN", monkeypatch)
    own = looked_back(components, batch)
    before = Objective(TrainConfig(), components).prepare(batch)
    result = looked_back_own(components, batch) / components.vae.config.scaling_factor
    for view, known in enumerate(own.known):
        count = int(known.sum())
        torch.testing.assert_close(own.lq[view, :count], result[view, :count], rtol=1e-3, atol=1e-3)
    # At a noise level they are noised as what they are, not as the truth.
    shift = (own.noisy - before.noisy) / components.vae.config.scaling_factor
    torch.testing.assert_close(shift[own.known], (own.lq - seen)[own.known], rtol=1e-3, atol=1e-3)
    assert not shift[~own.known].any()


def loss_of(targets: Targets, outputs_of: Any, batch: Sample) -> dict[str, Tensor]:
    settings = TrainConfig(**ALWAYS)
    return Objective(settings, tiny.pipeline().parts).loss(outputs_of(targets), targets, batch)[1]


def test_known_frames_count_in_no_loss() -> None:
    components, batch = tiny.pipeline().parts, made_batch(BOTH)
    batch = batch._replace(landmarks_valid=torch.ones(2, FRAMES, dtype=torch.bool))
    targets = looked_back(components, batch)
    with torch.no_grad():
        outputs = TrainedModel(components.model)(targets)
    expected = loss_of(targets, lambda _: outputs, batch)
    wrong = [None if x is None else x.clone() for x in outputs]
    for values in wrong[:3]:
        values[targets.known] += torch.randn(values[targets.known].shape)  # type: ignore[index]
    found = loss_of(targets, lambda _: type(outputs)(*wrong), batch)
    assert found == expected
    free = loss_of(targets._replace(known=torch.zeros_like(targets.known)), lambda _: type(outputs)(*wrong), batch)
    assert all(free[name] != expected[name] for name in ("loss_noise", "loss_ulr", "loss_prior"))


def test_own_references_are_described_as_inference_describes_them() -> None:
    components, batch = tiny.pipeline().parts, made_batch(BOTH)
    before = Objective(TrainConfig(), components).prepare(batch)
    after = looked_back(components, batch, context_frames=0, reference_own=1.0)
    result = looked_back_own(components, batch)
    image = to_uint8(to_unit(components.decode(result[:1, 0], 1)[0]))
    points = five_points(batch.landmarks[0, 0].numpy() * tiny.SIZE - 0.5)
    described = components.encode_reference(to_tensor(image), image, points)
    torch.testing.assert_close(after.ref[:1], described.latents)
    tokens = components.model.id_projector(after.id_features[:1])
    torch.testing.assert_close(tokens, described.id_tokens)
    changed = [not torch.equal(a, b) for a, b in zip(after.ref, before.ref, strict=True)]
    assert changed == [True, True, False, False]  # the second clip has no reference
    assert not torch.equal(after.ref[0], after.ref[1])  # each view its own result
    assert not torch.allclose(after.id_features[0], before.id_features[0])
    assert torch.equal(after.id_features[2:], before.id_features[2:])
    assert after.known.sum() == 0
    unchanged = looked_back(components, batch, context_frames=0, reference_own=0.0)
    assert torch.equal(unchanged.ref, before.ref)


def test_looking_back_leaves_no_gradient_and_training_goes_on() -> None:
    components = tiny.pipeline().parts
    settings = TrainConfig(**ALWAYS, reference_own=0.5)
    objective = Objective(settings, components)
    module: nn.Module = objective.module()
    loss, parts = objective(module, made_batch(BOTH))
    loss.backward()
    assert all(p.grad is not None for p in module.parameters())
    assert set(parts) == {"loss", "loss_noise", "loss_ulr", "loss_prior"}


def test_a_run_with_context_is_resumed_bit_for_bit_and_its_weights_say_so(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"context_frames": 1, "context_share": 0.8, "reference_own": 0.5, "max_steps": 2}
    train(config(tmp_path, output_dir=tmp_path / "whole", **settings))
    for steps in (1, 2):
        train(config(tmp_path, **settings | {"max_steps": steps}))
    assert metrics(tmp_path) == metrics(tmp_path, "whole")
    assert weights(tmp_path, 2) == weights(tmp_path, 2, "whole")
    folder = tmp_path / "run/weights/step_000002"
    assert load_folder(folder).settings.context_frames == 1
    assert SVFRPipeline.from_pretrained(folder, device="cpu")(tiny.clip(5)).shape == (5, tiny.SIZE, tiny.SIZE, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_frames": 3}, "context_frames=3: has to be below data.num_frames"),
        ({"context_frames": 1, "clip_length": 1}, r"context_frames=1: has to be below clip_length \(1\)"),
        ({"context_share": 1.5}, "context_share=1.5: has to be at most 1"),
        ({"context_frames": 2, "max_context": 1}, "max_context=1: has to be a number of at least 2"),
        ({"reference_own": -1}, "reference_own=-1"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TrainConfig(data=DataConfig(num_frames=3)), **changes)
