import json
import pickle
from pathlib import Path

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from svfr.models.heads import IDProjector
from svfr.models.identity import IResNet
from svfr.models.weights import (
    WeightsError,
    build_part,
    load_id_projector,
    load_iresnet,
    load_part,
    load_strict,
    read_config,
    read_state,
)
from tests import tiny


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {"weight": torch.randn(3, 4), "bias": torch.randn(3)}


def refusal(path: Path) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(WeightsError) as error:
        read_state(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_safetensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "w.safetensors")
    assert_same(read_state(tmp_path / "w.safetensors"), state)


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.ckpt"])
def test_plain_pth(tmp_path: Path, state: dict[str, Tensor], name: str) -> None:
    torch.save(state, tmp_path / name)
    assert_same(read_state(tmp_path / name), state)


def test_old_pth_of_ddp(tmp_path: Path, state: dict[str, Tensor]) -> None:
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save(wrapped, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert_same(read_state(tmp_path / "w.pth"), state)


def test_full_precision_before_fp16(tmp_path: Path) -> None:
    part = tiny.id_projector()
    part.save_config(tmp_path)
    with pytest.raises(WeightsError, match="no weights there"):
        load_part(IDProjector, tmp_path, torch.float32)
    state = part.state_dict()
    for name, factor in (("fp16.", 2), ("", 3)):
        values = {key: factor * value for key, value in state.items()}
        save_file(values, tmp_path / f"diffusion_pytorch_model.{name}safetensors")
        assert_same(load_part(IDProjector, tmp_path, torch.float32).state_dict(), values)


def test_sharded_index(tmp_path: Path, state: dict[str, Tensor]) -> None:
    for number, key in enumerate(state):
        save_file({key: state[key]}, tmp_path / f"w-{number}.safetensors")
    index = {"metadata": {}, "weight_map": {key: f"w-{number}.safetensors" for number, key in enumerate(state)}}
    (tmp_path / "w.safetensors.index.json").write_text(json.dumps(index))
    assert_same(read_state(tmp_path / "w.safetensors.index.json"), state)
    (tmp_path / "w-1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"w-1\.safetensors: no such weights file"):
        read_state(tmp_path / "w.safetensors.index.json")


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_broken_index(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.safetensors.index.json"
    path.write_text(text)
    refusal(path)


@pytest.mark.parametrize("or_random", [False, True])
def test_weights_that_are_there_are_never_passed_over(tmp_path: Path, or_random: bool) -> None:
    part = tiny.id_projector()
    part.save_pretrained(tmp_path, max_shard_size="1KB")
    assert_same(load_part(IDProjector, tmp_path, torch.float32, or_random).state_dict(), part.state_dict())
    for file in tmp_path.glob("*.safetensors*"):
        file.unlink()
    (tmp_path / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(WeightsError, match="no weights there"):
        load_part(IDProjector, tmp_path, torch.float32, or_random)


def test_fp16_variant_is_loaded_in_the_dtype_asked_for(tmp_path: Path) -> None:
    part = tiny.id_projector()
    part.half().save_pretrained(tmp_path, variant="fp16")
    loaded = load_part(IDProjector, tmp_path, torch.float32)
    assert not loaded.training
    assert_same(loaded.state_dict(), {key: value.float() for key, value in part.state_dict().items()})


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_object_is_refused_and_its_code_not_run(tmp_path: Path, state: dict[str, Tensor], zipped: bool) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    torch.save({**state, "evil": Payload(trace)}, path, _use_new_zipfile_serialization=zipped)
    refusal(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # it would have run
    assert trace.exists()


def test_bare_pickle_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Payload(trace)))
    refusal(path)
    assert not trace.exists()


@pytest.mark.parametrize("held", [nn.Linear(2, 2), [1, 2], {"epoch": 3}, {"state_dict": {}}, torch.zeros(2)])
def test_anything_but_tensors_by_name_is_refused(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "w.pth")
    refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("kept", [0, 10, 100, -20])
def test_truncated_file(tmp_path: Path, state: dict[str, Tensor], name: str, kept: int) -> None:
    path = tmp_path / name
    if name.endswith(".pth"):
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    refusal(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_text_file_and_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refusal(tmp_path / name)
    (tmp_path / "folder" / name).mkdir(parents=True)
    assert "no such weights file" in refusal(tmp_path / "folder" / name)


def test_missing_file(tmp_path: Path) -> None:
    assert "no such weights file" in refusal(tmp_path / "none.pth")


def test_wrong_keys_and_shapes_are_named(state: dict[str, Tensor]) -> None:
    source = Path("unet.pth")
    with pytest.raises(WeightsError, match=r"unet\.pth: .*Linear; keys: 1 missing \(bias\)$"):
        load_strict(nn.Linear(4, 3), {"weight": state["weight"]}, source)
    extra = {f"extra.{i}": torch.zeros(1) for i in range(5)}
    with pytest.raises(WeightsError, match=r"5 unexpected \(extra\.0, extra\.1, extra\.2, \.\.\.\)$"):
        load_strict(nn.Linear(4, 3), state | extra, source)
    with pytest.raises(WeightsError, match=r"weight \(3, 4\) instead of \(3, 5\)"):
        load_strict(nn.Linear(5, 3), dict(state), source)
    with pytest.raises(WeightsError, match=r"1 missing \(weight\); 1 unexpected \(weights\)"):
        load_strict(nn.Linear(4, 3), {"weights": state["weight"], "bias": state["bias"]}, source)


def test_batch_counters_may_be_missing_and_the_given_state_stays() -> None:
    network = tiny.id_encoder()
    given = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    keys = set(given)
    with torch.device("meta"):
        loaded = IResNet(18, (8, 8, 16, 16), embedding_dim=32)
    load_strict(loaded, given, Path("arcface.pth"))
    face = torch.randn(1, 3, 112, 112)
    torch.testing.assert_close(loaded.eval()(face).embedding, network(face).embedding)
    assert set(given) == keys


def test_config_of_a_part(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json: missing"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json: not valid JSON"):
        read_config(tmp_path)


@pytest.mark.parametrize("depth", [18, 50])
def test_iresnet_is_read_off_its_keys(tmp_path: Path, depth: int) -> None:
    network = IResNet(depth, (4, 4, 8, 8), embedding_dim=16)
    torch.save(network.state_dict(), tmp_path / "arcface.pth")
    loaded = load_iresnet(tmp_path / "arcface.pth", torch.float32)
    assert (loaded.config.depth, loaded.config.embedding_dim) == (depth, 16)
    assert_same(loaded.state_dict(), network.state_dict())


def test_other_networks_in_their_place(tmp_path: Path) -> None:
    torch.save(tiny.id_projector().state_dict(), tmp_path / "id_linear.pth")
    torch.save(tiny.id_encoder().state_dict(), tmp_path / "arcface.pth")
    load_id_projector(tmp_path / "id_linear.pth", torch.float32)
    with pytest.raises(WeightsError, match=r"arcface\.pth: no ID projector"):
        load_id_projector(tmp_path / "arcface.pth", torch.float32)
    with pytest.raises(WeightsError, match=r"id_linear\.pth: no ArcFace"):
        load_iresnet(tmp_path / "id_linear.pth", torch.float32)


@pytest.fixture(scope="module")
def xt_config() -> dict:
    """SVD-XT's own UNet config, widened; diffusers' defaults are the rest."""
    return {"in_channels": 12, "num_attention_heads": (5, 10, 20, 20), "num_frames": 25}


def test_released_unet_size(xt_config: dict) -> None:
    unet = build_part(UNetSpatioTemporalConditionModel, xt_config, Path("unet.pth"))
    assert unet.config.block_out_channels == (320, 640, 1280, 1280)
    assert unet.config.cross_attention_dim == 1024
    assert unet.conv_in.in_channels == 12
    # SVD-XT has 1,524,623,082 parameters; four more input channels of a 3 x 3 convolution add 4 * 9 * 320.
    assert sum(p.numel() for p in unet.parameters()) == 1_524_623_082 + 4 * 9 * 320
    state = unet.state_dict()
    load_strict(
        build_part(UNetSpatioTemporalConditionModel, xt_config, Path("unet.pth")), dict(state), Path("unet.pth")
    )

    renamed = {key.replace("conv_out.bias", "conv_out.b"): value for key, value in state.items()}
    with pytest.raises(WeightsError, match=r"1 missing \(conv_out\.bias\); 1 unexpected \(conv_out\.b\)"):
        load_strict(unet, renamed, Path("unet.pth"))
    stock = build_part(UNetSpatioTemporalConditionModel, xt_config | {"in_channels": 8}, Path("unet.pth"))
    with pytest.raises(WeightsError, match=r"conv_in\.weight \(320, 8, 3, 3\) instead of \(320, 12, 3, 3\)"):
        load_strict(unet, stock.state_dict(), Path("unet.pth"))


def test_unreadable_file(tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state, tmp_path / "w.pth")

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", denied)
    assert "Permission denied" in refusal(tmp_path / "w.pth")
