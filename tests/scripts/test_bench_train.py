import json
from pathlib import Path
from typing import Any

import bench
import pytest
import torch
from benchmarks import train, train_measure, train_memory
from benchmarks.train_memory import (
    Activations,
    Counted,
    LiveBytes,
    autocast,
    count_flops,
    cuda_norms,
    forward_backward,
    rows,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from svfr.training.objective import Targets, TrainedModel
from tests import tiny


def model_and_targets() -> tuple[TrainedModel, Targets]:
    made = tiny.inputs(batch=2)
    targets = Targets(
        clean=made["noisy_latents"],
        noisy=made["noisy_latents"],
        lq=made["lq_latents"],
        ref=made["ref_latents"],
        id_features=torch.randn(2, 16, 7, 7),
        has_reference=torch.ones(2),
        sigma=made["sigma"],
        task_prompt=made["task_prompt"],
    )
    return TrainedModel(tiny.model()).train().requires_grad_(True), targets


def fake(model: TrainedModel, targets: Targets, mode: FakeTensorMode) -> Targets:
    """The same without data; the model in place. To be called outside of the mode."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(mode.from_tensor(parameter.detach())))
    return Targets(*(mode.from_tensor(tensor) for tensor in targets))


def storages(tensors: list[Tensor]) -> dict[int, int]:
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}


# Counting


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_counted_as_alive_is_what_is_saved_for_the_backward_pass(precision: str) -> None:
    model, targets = model_and_targets()
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    keep = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with LiveBytes() as live, keep, cuda_norms(precision), autocast(precision):
        outputs = model(targets)
    given = storages([*model.parameters(), *targets])
    kept = storages([*saved, *(output for output in outputs if output is not None)])
    measured = sum(size for key, size in kept.items() if key not in given)
    assert live.now == pytest.approx(measured, rel=0.01)
    assert live.peak > measured


def test_tensors_without_data_count_as_real_ones() -> None:
    model, targets = model_and_targets()
    real = train_memory.activations(model, targets)
    model, targets = model_and_targets()
    mode = FakeTensorMode()
    without_data = fake(model, targets, mode)
    with mode:
        assert train_memory.activations(model, without_data) == real


def test_checkpointing_and_low_precision_need_less() -> None:
    model, targets = model_and_targets()
    fp32, bf16, fp32_checkpointed, bf16_checkpointed = (a.peak for a in train_memory.activations(model, targets))
    assert fp32_checkpointed < 0.7 * fp32
    assert bf16 < 0.8 * fp32
    assert bf16_checkpointed < bf16


def test_autocast_normalizes_in_float32_as_on_a_gpu() -> None:
    x = torch.zeros(1, 4, 2, dtype=torch.bfloat16)
    with cuda_norms("bf16"), autocast("bf16"):
        assert nn.GroupNorm(2, 4)(x).dtype == nn.LayerNorm(2)(x).dtype == torch.float32
        assert nn.Linear(2, 2)(x.float()).dtype == torch.bfloat16


def test_attention_is_fused() -> None:
    called: set[Any] = set()

    class Note(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.add(function.overloadpacket)
            return function(*args, **(kwargs or {}))

    model, targets = model_and_targets()
    mode = FakeTensorMode()
    without_data = fake(model, targets, mode)
    with mode, Note():
        forward_backward(model, without_data, "bf16")
    aten = torch.ops.aten
    assert aten._scaled_dot_product_flash_attention_for_cpu in called
    assert not {aten._safe_softmax, aten._softmax} & called


def test_flops_by_hand() -> None:
    query = torch.randn(2, 3, 10, 16)
    with torch.no_grad(), count_flops() as counter:
        nn.Linear(16, 8)(torch.zeros(5, 16))
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert counter.get_total_flops() == 2 * 5 * 16 * 8 + 4 * 2 * 3 * 10 * 10 * 16


def test_rows_by_hand() -> None:
    counted = Counted(512, 16, 2, 800, 100, 6400, [Activations(True, "bf16", 3000)], 0, 0)
    one, two, eight = rows(counted)
    assert (one.parameters, one.gradients, one.optimizer, one.average, one.frozen) == (3200, 3200, 6400, 3200, 200)
    assert (one.working, two.working, eight.working) == (6400, 3200, 3000)  # of the optimizer, as long as it needs more
    assert eight.total == 400 + 400 + 800 + 400 + 200 + 3000


# Measuring


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("cpu", None)])
def test_published_peaks(name: str, peak: float | None) -> None:
    assert train.published_tflops(name) == peak


def test_bench_train_prints_and_writes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.pipeline().save_pretrained(tmp_path / "weights")
    monkeypatch.setattr(train, "in_new_process", lambda function, *arguments: function(*arguments))
    command = ["train", "--sections", "data,step", "--weights", str(tmp_path / "weights"), "--device", "cpu"]
    command += ["--samples", "1", "--steps", "1", "--peak-tflops", "1", "--output", str(tmp_path / "out.json")]
    assert bench.main(command) == 0
    results = json.loads((tmp_path / "out.json").read_text())
    assert set(results["data"][0]["seconds"]) == set(train_measure.DATA_STAGES)
    assert results["data"][0]["seconds"]["read"] > results["data"][0]["seconds"]["tensors"] > 0
    assert results["rendering"]["frames_per_second"] > 0
    plain, checkpointed = results["step"]["rows"]
    assert [plain["checkpointing"], checkpointed["checkpointing"]] == [False, True]
    assert plain["flops"] == checkpointed["flops"] > 0
    assert all(seconds > 0 for seconds in plain["seconds"].values())
    assert "renderer alone" in capsys.readouterr().out


def test_stages_of_the_data_path_are_all_measured() -> None:
    setup = train_measure.Setup("svd-xt", 32, 4, 4, "svfr", None, 1, "fp32", "cpu", 1)  # 4 views: all tasks
    measured = train_measure.measure_data(setup, rendered=True, num_samples=4)
    assert set(measured.seconds) == set(train_measure.DATA_STAGES)
    assert min(measured.seconds.values()) > 0, measured


def test_rendering_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    rendered: list[tuple[int, int]] = []

    def render_clip(seed: int, num_frames: int, size: int) -> None:
        nonlocal now
        now += 100.0 if not rendered else 0.5  # the first warms up
        rendered.append((num_frames, size))

    monkeypatch.setattr(train_measure, "render_clip", render_clip)
    monkeypatch.setattr(train_measure.time, "perf_counter", lambda: now)
    setup = train_measure.Setup("svd-xt", 32, 4, 2, "svfr", None, 1, "fp32", "cpu", 1)
    assert train_measure.measure_rendering(setup, 3) == pytest.approx(3 * 4 / 1.5)
    assert rendered == [(4, 32)] * 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--sections", "stepp"], "stepp"), (["--samples", "0"], "--samples"), (["--weights", "nowhere"], "nowhere")],
)
def test_wrong_calls_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert bench.main(["train", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line
