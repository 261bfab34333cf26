import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder

from svfr.inference.pipeline import SVFRPipeline
from svfr.models.components import Components, ModelSettings
from svfr.models.identity import id_crop
from svfr.models.sources import find_released, load_folder
from svfr.models.weights import WeightsError
from tests import tiny

CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, pipe: SVFRPipeline) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A saved model to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def released(tmp_path: Path) -> dict[str, Path]:
    """Tiny networks in the layout of SVD's folder and the released files."""
    tiny.write_released(tmp_path, tiny.pipeline(heads=False).parts)
    files = find_released(tmp_path)
    assert files is not None
    return files._asdict()


def refusal(load: Callable[[], object]) -> str:
    with pytest.raises(WeightsError) as error:
        load()
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same_parts(one: Components, other: Components) -> None:
    assert one.networks.keys() == other.networks.keys()
    for name, part in one.networks.items():
        state, expected = part.state_dict(), other.networks[name].state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in state), name
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())


# Saved and loaded


def test_round_trip_is_bit_identical(saved: Path, pipe: SVFRPipeline, clip: np.ndarray) -> None:
    loaded = SVFRPipeline.from_pretrained(saved, **CPU)
    assert_same_parts(loaded.parts, pipe.parts)
    assert "latent_transformer" in loaded.parts.networks
    assert "landmark_predictor" in loaded.parts.networks
    assert loaded.parts.settings == tiny.SETTINGS
    expected, given = (p(clip[:6], output_type="pt") for p in (pipe, loaded))
    assert torch.equal(given, expected)


def test_layout_is_diffusers(saved: Path) -> None:
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "SVFRPipeline"
    assert index["unet"] == ["diffusers", "UNetSpatioTemporalConditionModel"]
    for part in ("unet", "vae", "id_projector", "id_encoder", "latent_transformer", "landmark_predictor"):
        assert sorted(file.name for file in (saved / part).iterdir()) == [
            "config.json",
            "diffusion_pytorch_model.safetensors",
        ]
    assert AutoencoderKLTemporalDecoder.from_pretrained(saved / "vae").config.latent_channels == 4


def test_without_heads(tmp_path: Path) -> None:
    tiny.pipeline(heads=False).save_pretrained(tmp_path)
    assert set(load_folder(tmp_path).networks) == {"unet", "vae", "id_projector", "id_encoder"}


@pytest.mark.parametrize("patch_size", [2, 4])
def test_patch_autoencoder_in_the_place_of_the_vae(tmp_path: Path, clip: np.ndarray, patch_size: int) -> None:
    pipe = tiny.patch_pipeline(patch_size)
    pipe.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["vae"] == ["svfr", "PatchAutoencoder"]
    loaded = SVFRPipeline.from_pretrained(tmp_path, **CPU)
    assert_same_parts(loaded.parts, pipe.parts)
    assert loaded.parts.downscale == patch_size
    assert loaded.parts.latent_channels == 6
    expected, given = (p(clip[:6], output_type="pt") for p in (pipe, loaded))
    assert torch.equal(given, expected)
    assert loaded.parts.check_size(tiny.SIZE) == tiny.SIZE
    with pytest.raises(ValueError, match=f"multiple of {2 * patch_size}"):
        loaded.parts.check_size(tiny.SIZE + 1)


def test_vae_of_an_unknown_class(folder: Path) -> None:
    edit(folder / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    message = refusal(lambda: load_folder(folder))
    assert "vae 'AutoencoderTiny': choose from AutoencoderKLTemporalDecoder, PatchAutoencoder" in message


def test_dtype_and_the_vae_that_overflows_in_half(saved: Path) -> None:
    components = SVFRPipeline.from_pretrained(saved, device="cpu", dtype="float16").parts
    assert components.model.unet.dtype == components.id_encoder.dtype == torch.float16
    assert components.vae.config.force_upcast
    assert components.vae.dtype == torch.float32
    assert components.to("cpu", torch.bfloat16).vae.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_dtype_restores(saved: Path, clip: np.ndarray, dtype: str) -> None:
    pipe = SVFRPipeline.from_pretrained(saved, device="cpu", dtype=dtype)
    unit = pipe(clip[:6], output_type="pt")
    assert isinstance(unit, torch.Tensor)
    assert unit.dtype == torch.float32
    assert unit.isfinite().all()


def test_initialized_parts_have_the_same_weights_each_time_and_leave_the_generator(folder: Path) -> None:
    edit(folder / "model_index.json", settings={"untrained": False, "size": 32})  # as older folders say
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    torch.manual_seed(1)
    one = load_folder(folder, seed=0)
    after = torch.rand(1)
    torch.manual_seed(2)
    other = load_folder(folder, seed=0)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert one.settings.size == 32
    assert_same_parts(one, other)


# Released files


def test_released_files_give_the_networks_put_together_by_hand(released: dict[str, Path], clip: np.ndarray) -> None:
    pipe = SVFRPipeline.from_released(**released, **CPU)  # type: ignore[arg-type]
    by_hand = tiny.pipeline(heads=False, settings=ModelSettings())
    assert pipe.parts.settings == ModelSettings()
    assert_same_parts(pipe.parts, by_hand.parts)
    arguments = {"size": tiny.SIZE, "clip_length": 4, "num_inference_steps": 2}
    np.testing.assert_array_equal(pipe(clip[:6], **arguments), by_hand(clip[:6], **arguments))  # type: ignore[arg-type]


def test_released_then_saved_then_loaded(released: dict[str, Path], tmp_path: Path) -> None:
    pipe = SVFRPipeline.from_released(**released, **CPU)  # type: ignore[arg-type]
    pipe.save_pretrained(tmp_path / "converted")
    assert_same_parts(load_folder(tmp_path / "converted"), pipe.parts)


def test_fp16_variant_of_the_vae(released: dict[str, Path]) -> None:
    vae = released["svd"] / "vae"
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    tiny.vae().half().save_pretrained(vae, variant="fp16")
    loaded = SVFRPipeline.from_released(**released, **CPU).parts.vae  # type: ignore[arg-type]
    assert loaded.dtype == torch.float32
    expected = tiny.vae().half().float().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize("name", ["unet", "id_linear", "arcface"])
def test_released_files_mixed_up(released: dict[str, Path], name: str) -> None:
    other = {"unet": "arcface", "id_linear": "unet", "arcface": "id_linear"}[name]
    wrong = released | {name: released[other]}
    message = refusal(lambda: SVFRPipeline.from_released(**wrong, **CPU))  # type: ignore[arg-type]
    assert str(released[other]) in message


@pytest.mark.parametrize("name", ["unet", "id_linear", "arcface", "svd"])
def test_released_file_missing(released: dict[str, Path], name: str) -> None:
    wrong = released | {name: Path("nowhere")}
    message = refusal(lambda: SVFRPipeline.from_released(**wrong, **CPU))  # type: ignore[arg-type]
    assert "nowhere" in message


def test_unet_of_svd_in_place_of_the_released_one(released: dict[str, Path]) -> None:
    torch.save(tiny.unet(in_channels=8).state_dict(), released["unet"])
    message = refusal(lambda: SVFRPipeline.from_released(**released, **CPU))  # type: ignore[arg-type]
    assert "conv_in.weight (32, 8, 3, 3) instead of (32, 12, 3, 3)" in message


def test_id_projector_of_another_width(released: dict[str, Path]) -> None:
    torch.save({k: v[:8] for k, v in tiny.id_projector().state_dict().items()}, released["id_linear"])
    message = refusal(lambda: SVFRPipeline.from_released(**released, **CPU))  # type: ignore[arg-type]
    assert "token width" in message


# Damaged folders


@pytest.mark.parametrize(
    ("removed", "word"),
    [
        ("model_index.json", "model_index.json"),
        ("unet", "unet/config.json: missing"),
        ("vae/config.json", "vae/config.json: missing"),
        ("id_encoder/diffusion_pytorch_model.safetensors", "id_encoder: no weights"),
        ("landmark_predictor", "landmark_predictor"),
        ("scheduler", "scheduler_config.json: missing"),
    ],
)
def test_part_missing(folder: Path, removed: str, word: str) -> None:
    path = folder / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert word in refusal(lambda: SVFRPipeline.from_pretrained(folder, **CPU))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (None, "not a model of SVFR"),
        ({"sizes": 3}, "unknown setting 'sizes'"),
        ({"id_crop": "mine"}, "id_crop 'mine': choose from arcface, official"),
        ({"sampler": "ddim"}, "sampler 'ddim': choose from euler, dpmpp_2m"),
        ({"sampler": "antithetic"}, "sampler 'antithetic': choose from euler, dpmpp_2m"),  # of an earlier bundled model
    ],
)
def test_settings_of_another_model(folder: Path, settings: object, word: str) -> None:
    edit(folder / "model_index.json", settings=settings)
    assert word in refusal(lambda: load_folder(folder))


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_broken_json(folder: Path, name: str) -> None:
    (folder / name).write_text("{")
    assert name in refusal(lambda: load_folder(folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [("prediction_type", "epsilon"), ("timestep_type", "discrete"), ("use_karras_sigmas", False)],
)
def test_scheduler_of_another_model(folder: Path, key: str, value: object) -> None:
    edit(folder / "scheduler/scheduler_config.json", **{key: value})
    message = refusal(lambda: load_folder(folder))
    assert key in message
    assert repr(value) in message


def test_config_that_does_not_fit_the_weights(folder: Path) -> None:
    edit(folder / "id_projector/config.json", out_channels=64)
    assert "instead of (64," in refusal(lambda: load_folder(folder))


def test_no_such_folder(tmp_path: Path) -> None:
    message = refusal(lambda: SVFRPipeline.from_pretrained(tmp_path / "none", **CPU))
    assert "none" in message


# VAE, identity, condition


@pytest.mark.parametrize("num_frames", [1, 8, 9, 20])
def test_frames_are_encoded_each_on_its_own(components: Components, num_frames: int) -> None:
    frames = torch.rand(num_frames, 3, 16, 16) * 2 - 1
    latents = components.encode(frames)
    assert latents.shape == (num_frames, 4, 4, 4)
    torch.testing.assert_close(latents[-1:], components.encode(frames[-1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("context", [0, 1, 3])
@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_each_frame_is_decoded_once_and_in_order(
    components: Components, monkeypatch: pytest.MonkeyPatch, num_frames: int, chunk_size: int, context: int
) -> None:
    sizes = []

    def decode(latents: torch.Tensor, num_frames: int) -> object:
        assert len(latents) == num_frames
        sizes.append(num_frames)
        return type("Decoded", (), {"sample": latents})

    monkeypatch.setattr(components.vae, "decode", decode)
    latents = torch.arange(num_frames).view(-1, 1, 1, 1).float()
    decoded = components.decode(latents, chunk_size, context) * components.vae.config.scaling_factor
    torch.testing.assert_close(decoded, latents)
    assert max(sizes) <= chunk_size


def test_decoder_sees_the_frames_before_a_chunk(components: Components) -> None:
    latents = torch.randn(6, 4, 4, 4)
    at_once, cut, joined = (components.decode(latents, *a) for a in ((6, 0), (4, 0), (4, 2)))
    torch.testing.assert_close(components.decode(latents, 99), at_once)
    assert (joined - at_once)[4:].abs().mean() < (cut - at_once)[4:].abs().mean()


def test_no_reference_is_zeros(components: Components) -> None:
    condition = components.condition(None, (8, 8))
    assert condition.ref_latents.shape == (1, 4, 8, 8)
    assert not condition.ref_latents.any()
    given = tiny.inputs()
    zeros = torch.zeros(1, tiny.TOKENS, tiny.TOKEN_DIM)
    with torch.no_grad():
        expected = components.model(**given | {"id_tokens": zeros}).prediction
        given_tokens = components.model(**given | {"id_tokens": condition.context}).prediction
    torch.testing.assert_close(given_tokens, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("style", ["arcface", "official"])
def test_id_crop_is_a_property_of_the_weights(style: str) -> None:
    components = tiny.pipeline(heads=False, settings=ModelSettings(id_crop=style)).parts
    image = tiny.clip(1, 256, 256)[0]
    landmarks = np.array([[96.0, 120], [159, 120], [128, 157], [100, 186], [156, 186]])
    reference = components.encode_reference(torch.zeros(3, 256, 256), image, landmarks)
    torch.testing.assert_close(reference.id_tokens, components.id_tokens(id_crop(image, landmarks, style)[None]))
    assert reference.latents.shape == (1, 4, 64, 64)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model_index.json", '{"vae": {"a": 1}, "settings": {"size": 64}}'),
        ("model_index.json", '{"settings": {"size": "64"}}'),
        ("model_index.json", '{"settings": [1]}'),
        ("model_index.json", "[" * 100_000),
        ("unet/config.json", "[1]"),
        ("unet/config.json", '{"addition_time_embed_dim": {}}'),
        ("unet/config.json", '{"layers_per_block": 100000}'),
        ("unet/config.json", json.dumps({"block_out_channels": [32] * 100_000})),
        ("scheduler/scheduler_config.json", '{"beta_schedule": -1}'),
        ("scheduler/scheduler_config.json", '{"trained_betas": "x"}'),
    ],
)
def test_crafted_metadata_is_one_line(tmp_path: Path, file: str, content: str) -> None:
    tiny.pipeline().save_pretrained(tmp_path)
    before = json.loads((tmp_path / file).read_text())
    changes = json.loads(content) if content.startswith("{") and "index" not in file else None
    (tmp_path / file).write_text(content if changes is None else json.dumps(before | changes))
    with pytest.raises(WeightsError) as caught:
        load_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
