"""Each stage, from its stored input, and whole runs against vectors that the released code computed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from PIL import Image
from torch import Tensor

from svfr.data.frames import resize, resize_mask, task_input, to_tensor, to_unit
from svfr.diffusion import get_scalings, karras_sigmas
from svfr.inference.chain import make_denoiser
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.released import released_windows, sample_windows
from svfr.models.components import Components, ModelSettings
from svfr.models.heads import IDProjector
from svfr.models.identity import IResNet, official_crop, official_matrix
from svfr.models.svfr import SVFR
from svfr.models.unet import FixedContext
from svfr.tasks import task_prompt
from tests import golden_files as golden

pytestmark = pytest.mark.slow
SIZE, WINDOW, OVERLAP, SCALE, CHUNK = 128, 8, 3, 2.0, 8
NOISY = 5e-4  # latents that begin at some thousands, where a float32 is rounded to 2.4e-4


@pytest.fixture(autouse=True)
def no_grad() -> Any:
    with torch.no_grad():
        yield


def assert_close(given: Tensor, expected: np.ndarray | Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(given, torch.as_tensor(expected), atol=atol, rtol=0)


# Networks


def same_tokens(seed: int, *shape: int) -> Tensor:
    tokens = golden.rng(seed, *shape)[:, 0]
    tokens[0] = 0
    return tokens


@pytest.mark.parametrize("fixed", [False, True])
def test_tiny_unet(fixed: bool) -> None:
    unet, expected = golden.tiny_unet(), golden.load("unet_tiny.npz")
    sample, tokens = golden.rng(11, 2, 6, 12, 16, 16), same_tokens(13, 2, 1, 49, 32)
    arguments = [torch.tensor(x) for x in (expected["timestep"], expected["added_time_ids"])]
    if fixed:
        context = FixedContext(unet, tokens)
        with context.installed():
            out = unet(sample, arguments[0], context.placeholder(), arguments[1]).sample
    else:
        out = unet(sample, arguments[0], tokens, arguments[1]).sample
    assert_close(out, expected["out_same"])


def test_unet_of_svds_size() -> None:
    """1.5 billion parameters: about 7 GB and a minute, the most of it for the weights' formula."""
    expected = golden.load("unet_real.npz")
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel(in_channels=12, num_attention_heads=(5, 10, 20, 20))
    golden.fill(unet, golden.SALT["unet"], round_to_half=False)
    context = FixedContext(unet, same_tokens(23, 2, 1, 49, 1024))
    with context.installed():
        out = unet(
            golden.rng(21, 2, 3, 12, 16, 16),
            torch.tensor(expected["timestep"]),
            context.placeholder(),
            torch.tensor(expected["added_time_ids"]),
        ).sample
    assert_close(out, expected["out_same"])


def test_id_projector() -> None:
    features, expected = golden.rng(31, 2, 512, 7, 7), golden.load("idproj.npz")
    tiny = golden.fill(IDProjector(512, 32), golden.SALT["id_projector"], round_to_half=True)
    assert_close(tiny(features), expected["out_tiny"])
    real = golden.fill(IDProjector(512, 1024), golden.SALT["id_projector"], round_to_half=False)
    assert_close(real(features)[0, :8], expected["out_real_row0_tok8"])


def test_arcface(arcface: IResNet) -> None:
    expected = golden.load("arcface_r100.npz")
    out = arcface(golden.rng(41, 1, 3, 112, 112).clamp(-1, 1))
    assert_close(out.embedding, expected["emb"])
    assert_close(out.feature_map, expected["layer4"])


def test_vae(components: Components) -> None:
    expected = golden.load("vae_tiny.npz")
    image = (golden.rng(51, 5, 3, 48, 48) * 0.5).clamp(-1, 1)
    assert_close(components.encode(image), expected["mode"])
    scaled = torch.from_numpy(expected["mode"]) * components.vae.config.scaling_factor
    assert_close(components.decode(scaled, chunk_size=5), expected["decoded_chunk5"])
    assert_close(components.decode(scaled, chunk_size=3)[2:], expected["decoded_chunk3_2_last3"])


@pytest.mark.parametrize("num_steps", [5, 6, 25, 30, 50])
def test_noise_levels(num_steps: int) -> None:
    expected = golden.load("scheduler.npz")
    sigmas = karras_sigmas(num_steps, 0.002, 700.0)
    torch.testing.assert_close(sigmas, torch.from_numpy(expected[f"sigmas_{num_steps}"]), atol=0, rtol=1e-5)
    assert_close(get_scalings(sigmas[:-1]).noise, expected[f"timesteps_{num_steps}"])


@pytest.mark.parametrize("entry", golden.windows(), ids=lambda e: "{num_frames}-{window}-{overlap}".format(**e))
def test_windows(entry: dict[str, Any]) -> None:
    plan = released_windows(entry["num_frames"], entry["window"], entry["overlap"], entry["steps"])
    given = [[step, frames] for step, windows in enumerate(plan) for frames in windows]
    assert given == [[step, frames] for step, _, _, frames in entry["windows"]]


def test_weights_follow_the_formula(components: Components, arcface: IResNet) -> None:
    parts = {
        "tiny_unet salt=1 fp16round": components.model.unet,
        "tiny_vae salt=2 fp16round": components.vae,
        "tiny_idproj salt=3 fp16round": components.model.id_projector,
        "arcface_r100 salt=4": arcface,
    }
    assert parts.keys() == golden.checksums().keys()
    for name, expected in golden.checksums().items():
        state = parts[name].state_dict()
        assert len(state) == expected["n_keys"], name
        assert sum(value.numel() for value in state.values()) == expected["n_params"], name
        assert sum(value.double().sum().item() for value in state.values()) == pytest.approx(expected["sum"])
        total = sum(value.double().abs().sum().item() for value in state.values())
        assert total == pytest.approx(expected["abs_sum"])
        for key, values in {**expected["first"], **expected["last"]}.items():
            assert state[key].flatten()[: len(values)].tolist() == values, key


# Two runs of the released script: bfr, and colorization with inpainting


@dataclass(frozen=True)
class Run:
    tasks: tuple[str, ...]
    steps: tuple[int, int]
    mask: np.ndarray | None
    inputs: dict[str, np.ndarray]
    identity: dict[str, np.ndarray]
    passes: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
    noise: tuple[Tensor, Tensor]

    @property
    def gamma(self) -> Tensor:
        return task_prompt(self.tasks)

    @property
    def num_frames(self) -> int:
        return len(self.inputs["frames_u8"])

    def stored(self, which: int, prefix: str) -> tuple[list[int], Tensor]:
        """The tensor of a pass whose key is `prefix` and the numbers that it ends in, and these numbers."""
        (key,) = (key for key in self.passes[which] if key.startswith(prefix))
        numbers = [int(number) for number in key.removeprefix(prefix).replace("win", "").split("_") if number]
        return numbers, torch.from_numpy(self.passes[which][key])


RUNS: dict[str, tuple[tuple[str, ...], tuple[int, int]]] = {
    "e2e": (("bfr",), (6, 5)),
    "combined": (("colorization", "inpainting"), (3, 3)),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest) -> Run:
    name = request.param
    tasks, steps = RUNS[name]
    inputs = golden.load(f"{name}_inputs.npz")
    return Run(
        tasks=tasks,
        steps=steps,
        mask=np.asarray(Image.open(golden.GOLDEN / "combined_mask.png")) if "inpainting" in tasks else None,
        inputs=inputs,
        identity=golden.load(f"{name}_id.npz"),
        passes=(golden.load(f"{name}_pass1.npz"), golden.load(f"{name}_pass2.npz")),
        noise=(torch.from_numpy(inputs["noise_pass1"][0]), torch.from_numpy(inputs["noise_pass2"][0])),
    )


@pytest.fixture(scope="module")
def arcface() -> IResNet:
    return golden.fill(IResNet(100), golden.SALT["arcface"], round_to_half=False)


@pytest.fixture(scope="module")
def components(arcface: IResNet) -> Components:
    projector = golden.fill(IDProjector(512, 32), golden.SALT["id_projector"], round_to_half=True)
    scheduler = EulerDiscreteScheduler(**golden.settings()["scheduler"])
    settings = ModelSettings(size=SIZE, clip_length=WINDOW)
    return Components(SVFR(golden.tiny_unet(), projector), golden.tiny_vae(), arcface, scheduler, settings)


def lq_frames(run: Run) -> np.ndarray:
    hole = None if run.mask is None else resize_mask(run.mask, SIZE, SIZE)
    return np.stack([task_input(resize(f, SIZE, SIZE), run.tasks, hole) for f in run.inputs["frames_u8"]])


def test_task_prompt(run: Run) -> None:
    assert run.gamma.tolist() == run.inputs["task_id"].tolist()


def test_lq_frames(run: Run) -> None:
    expected = run.inputs[f"lq_u8_frame0_{run.num_frames - 1}"]
    np.testing.assert_array_equal(lq_frames(run)[[0, -1]].transpose(0, 3, 1, 2), expected)


def test_lq_latents(run: Run, components: Components) -> None:
    latents = components.encode(torch.stack([to_tensor(frame) for frame in lq_frames(run)]))
    assert_close(latents[:WINDOW], run.passes[0]["lq_latent_unscaled"])
    assert_close(latents, run.passes[1]["lq_latent_unscaled"])


class Pass:
    """One pass of a run, from its stored latents, reference and ID tokens."""

    def __init__(self, run: Run, components: Components, which: int, batched: bool = False) -> None:
        self.batched = batched
        self.lq = torch.from_numpy(run.passes[which]["lq_latent_unscaled"])
        self.sigmas = karras_sigmas(run.steps[which], *components.sigma_range)
        self.start = components.vae.config.scaling_factor * self.lq + self.sigmas[0] * run.noise[which]
        self.components, self.gamma = components, run.gamma
        unreferred = components.condition(None, (16, 16))
        self.conditions = [unreferred]  # the released code runs this branch twice, to the same effect
        if which == 1:
            tokens = torch.from_numpy(run.identity["id_embedding"])[None]
            latents = torch.from_numpy(run.passes[1]["ref_latent_unscaled"])[None]
            referred = type(unreferred)(latents, components.model.fix_context(tokens))
            self.conditions = [unreferred, referred]

    def denoise(self, x: Tensor, sigma: Tensor, indices: list[int]) -> Tensor:
        how = (self.lq[indices], self.gamma, self.conditions, SCALE)
        return make_denoiser(self.components, *how, batched=self.batched)(x, sigma)

    def first_prediction(self, indices: list[int]) -> Tensor:
        """The guided v-prediction that the denoised latents of step 0 stand for."""
        sigma, x = self.sigmas[0], self.start[indices]
        scalings = get_scalings(sigma)
        return (self.denoise(x, sigma, indices) - scalings.skip * x) / scalings.out

    def sample(self) -> list[Tensor]:
        """The latents before each step, and the last ones."""
        return [self.start, *sample_windows(self.denoise, self.start, self.sigmas, WINDOW, OVERLAP)]


def test_pass_1(run: Run, components: Components) -> None:
    first = Pass(run, components, 0)
    _, prediction = run.stored(0, "noise_pred_step0")
    assert_close(first.first_prediction(list(range(WINDOW))), prediction[0])

    latents = first.sample()
    for step, expected in zip(*run.stored(0, "latents_before_step"), strict=True):
        assert_close(latents[step], expected, atol=NOISY)
    assert_close(latents[-1], run.passes[0]["latents_final"])


def test_reference(run: Run, components: Components) -> None:
    last = components.decode(torch.from_numpy(run.passes[0]["latents_final"]), CHUNK)[-1]
    expected = torch.from_numpy(run.identity["ref_img_tensor"])
    assert_close(to_unit(last), to_unit(expected))
    assert_close(last, expected)
    assert_close(components.encode(expected[None])[0], run.passes[1]["ref_latent_unscaled"])


def test_identity(run: Run, components: Components) -> None:
    """From the stored warp: OpenCV 5 interpolates otherwise than the OpenCV 4 of the vectors."""
    np.testing.assert_allclose(official_matrix(run.inputs["landmarks"], SIZE), run.identity["warp_matrix"], atol=1e-4)
    face = official_crop(run.identity["warped_u8"])[None]
    assert_close(face[0, 0], run.identity["arcface_in_ch0"])
    assert_close(components.id_encoder(face).feature_map[0, :64], run.identity["layer4_first64"])
    assert_close(components.id_tokens(face)[0], run.identity["id_embedding"])


def test_windows_of_pass_2(run: Run) -> None:
    stored = run.passes[1]
    plan = released_windows(run.num_frames, WINDOW, OVERLAP, run.steps[1])
    assert [frames for windows in plan for frames in windows] == stored["win_idx"].tolist()
    assert [step for step, windows in enumerate(plan) for _ in windows] == stored["win_step"].tolist()


@pytest.mark.parametrize("batched", [False, True])
def test_pass_2(run: Run, components: Components, batched: bool) -> None:
    second = Pass(run, components, 1, batched)
    assert_close(second.start[0], run.passes[1]["latents_before_step0_frame0"], atol=NOISY)
    plan = released_windows(run.num_frames, WINDOW, OVERLAP, 1)[0]
    for number, expected in zip(*run.stored(1, "noise_pred_step0"), strict=True):
        assert_close(second.first_prediction(plan[number]), expected)

    latents = second.sample()
    for step, expected in zip(*run.stored(1, "latents_before_step_"), strict=True):
        assert_close(latents[step], expected, atol=NOISY)
    assert_close(latents[-1], run.passes[1]["latents_final"])


def assert_video(unit: Tensor, run: Run, atol: float) -> None:
    stored = run.passes[1]
    last = run.num_frames - 1
    chosen = [0, 7, 13] if last == 20 else [0, 5]
    torch.testing.assert_close(unit[last], torch.from_numpy(stored[f"video_frame{last}"]), atol=atol, rtol=0)
    frames = (unit[chosen] * 255 + 0.5).floor().permute(0, 2, 3, 1).numpy()
    assert np.abs(frames - stored["video_final_u8"]).max() <= 1


def test_decoding(run: Run, components: Components) -> None:
    latents = torch.from_numpy(run.passes[1]["latents_final"])
    assert_video(to_unit(components.decode(latents, CHUNK)), run, atol=1e-4)


def test_from_video_to_video(run: Run, components: Components) -> None:
    unit = SVFRPipeline.from_components(components)(
        run.inputs["frames_u8"],
        tasks=run.tasks,
        mask=run.mask,
        strategy="released",
        num_inference_steps=run.steps,
        guidance_scale=SCALE,
        overlap=OVERLAP,
        decode_chunk_size=CHUNK,
        initial_noise=run.noise,
        reference_landmarks=run.inputs["landmarks"],
        output_type="pt",
    )
    assert isinstance(unit, Tensor)
    assert unit.shape == (run.num_frames, 3, SIZE, SIZE)
    assert_video(unit, run, atol=1 / 255)
