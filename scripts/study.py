#!/usr/bin/env python
"""The paper's ablations at small scale, on rendered clips: {single, multi, +ULR, +ULR+FPL} x seeds, and Table 1.

    python scripts/study.py --output DIR [max_steps=300 seeds=3 ...]

Trains every kind on every seed, restores held-out rendered clips with each, with and without a reference, evaluates
all of them, and writes study.md, study.html (what it shows, whatever that is) and the full report beside it. Run again,
it does what is left. Exit code: 0 all done, 1 something failed, 2 the call itself was wrong, 130 stopped by a signal.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from svfr import SVFRPipeline, config
from svfr.evaluation.restoring import OneProcess, restore_task
from svfr.evaluation.settings import EvalConfig
from svfr.evaluation.study import SEED_MARK, study_html, study_markdown
from svfr.evaluation.study_settings import StudyConfig
from svfr.evaluation.testset import DEGRADED, GROUND_TRUTH, MASKS, write_clip
from svfr.files import write_json
from svfr.inference.settings import InferConfig
from svfr.models.components import INDEX_NAME
from svfr.models.devices import resolve_device
from svfr.models.sources import find_model
from svfr.synthetic import TEST_SEEDS, render_clip
from svfr.tasks import TASKS
from svfr.training import checkpoint
from svfr.training.loop import TrainingError, train
from svfr.training.settings import DataConfig, TrainConfig

INTERRUPTED = 130  # the shell's exit code of Ctrl-C
SCRIPTS = Path(__file__).resolve().parent
KEPT_PARTS = ("vae", "id_encoder")  # of the base, with their weights; the rest starts at random
PRIOR = {"bfr": "inpainting", "colorization": "bfr", "inpainting": "bfr"}  # SVFR, Sec. 3
RENDERED_CLIPS = 100_000  # more than any study here draws, so that hardly a clip comes twice


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        name: of its folder.
        tasks: that it trains and is tested on.
        ulr: whether the unified latent regularization is on.
        prior: whether facial prior learning is on.
        start: name of the training that it starts from; None: at random.
    """

    name: str
    tasks: tuple[str, ...]
    ulr: bool = False
    prior: bool = False
    start: str | None = None


def trainings(transfer: bool) -> list[Training]:
    """What is trained on every seed, in an order that has each start before it is needed."""
    singles = [Training(f"single_{task}", (task,)) for task in TASKS]
    transfers = [Training(f"prior_{task}", (task,), start=f"single_{PRIOR[task]}") for task in TASKS]
    multi = [
        Training("multi", TASKS),
        Training("multi_ulr", TASKS, ulr=True),
        Training("multi_ulr_fpl", TASKS, ulr=True, prior=True),
    ]
    return [*singles, *(transfers if transfer else []), *multi]


def make_base(source: str, folder: Path) -> Path:
    """A model folder with the base's VAE and ID network, and configurations alone for the rest."""
    base = find_model(source)
    if not (folder / INDEX_NAME).exists():
        shutil.copytree(base, folder, dirs_exist_ok=True)
        for file in folder.rglob("*.safetensors"):
            if file.parent.name not in KEPT_PARTS:
                file.unlink()
    return folder


def train_config(training: Training, settings: StudyConfig, seed: int, output: Path) -> TrainConfig:
    """Settings of one training: the same steps and the same number of degraded views a step for all."""
    num_views = min(2, len(training.tasks))
    start = output / "base" if training.start is None else newest_weights(output, training.start, seed)
    return TrainConfig(
        init_from=str(start),
        output_dir=str(run_folder(output, training.name, seed)),
        seed=seed,
        max_steps=settings.max_steps,
        batch_size=settings.batch_size * 2 // num_views,
        learning_rate=settings.learning_rate,
        warmup_steps=min(50, settings.max_steps // 10),
        ema_decay=min(0.998, 1 - 10 / max(20, settings.max_steps)),
        precision=settings.precision,
        gradient_checkpointing=False,
        lambda_ulr=0.01 if training.ulr else 0.0,  # SVFR, Sec. 5.3
        lambda_prior=0.1 if training.prior else 0.0,
        validate_every=0,
        checkpoint_every=max(1, min(250, settings.max_steps // 2)),
        keep_checkpoints=1,
        tracker="none",
        device=settings.device,
        data=DataConfig(
            rendered_clips=RENDERED_CLIPS,
            size=settings.size,
            num_frames=settings.num_frames,
            num_views=num_views,
            task_weights=dict.fromkeys(training.tasks, 1.0),
            num_workers=settings.num_workers,
        ),
    )


def run_folder(output: Path, name: str, seed: int) -> Path:
    """Folder of a training."""
    return output / "runs" / f"{name}{SEED_MARK}{seed}"


def newest_weights(output: Path, name: str, seed: int) -> Path:
    """The weights that a training ended with.

    Raises:
        TrainingError: it has none.
    """
    weights = checkpoint.latest(run_folder(output, name, seed) / "weights", print)
    if weights is None:
        raise TrainingError(f"{name}, seed {seed}: no weights")
    return weights[1]


def make_test_clips(settings: StudyConfig, output: Path) -> Path:
    """Held-out rendered clips and their degraded inputs."""
    clips = output / "rendered"
    for index in tqdm(range(settings.test_clips), desc="held-out clips", unit="clip"):
        if not (clips / f"clip{index:03d}").exists():
            clip = render_clip(TEST_SEEDS + index, settings.test_frames, settings.size)
            write_clip(clips / f"clip{index:03d}", clip.frames)
    testset = output / "testset"
    call("make_testset.py", "--ground-truth", str(clips), "--output", str(testset), f"preset={settings.preset}")
    return testset


def call(script: str, *words: str) -> int:
    """Run another script of this folder.

    Raises:
        ValueError: it says that it was called wrongly.
    """
    code = subprocess.run([sys.executable, str(SCRIPTS / script), *words], check=False).returncode
    if code not in (0, 1):
        raise ValueError(f"{script} ended with {code}")
    return code


def restorations(transfer: bool) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """(method, training, tasks, reference frame) of all that is restored on every seed."""
    for training in trainings(transfer):
        method = training.name.rpartition("_")[0] if training.name.startswith(("single_", "prior_")) else training.name
        yield method, training.name, training.tasks, "best"
        if training.name == "multi_ulr_fpl":
            yield "no_reference", training.name, training.tasks, "none"


def restore_all(settings: StudyConfig, output: Path, testset: Path) -> None:
    """Restore the held-out clips with every training."""
    device = str(resolve_device(settings.device))
    for seed in range(settings.seeds):
        for method, name, tasks, reference in restorations(settings.transfer):
            source = newest_weights(output, name, seed)
            sampling = InferConfig(
                face="aligned",
                format="png",
                reference_frame=reference,
                num_inference_steps=settings.num_inference_steps,
                size=settings.size,
                clip_length=settings.num_frames,
            )
            pipe = SVFRPipeline.from_pretrained(source, device=device)
            for task in tasks:
                restore_task(
                    pipe,
                    str(source),
                    EvalConfig(restore=sampling),
                    task,
                    testset / DEGRADED / task,
                    testset / MASKS,
                    output / "restored" / f"{method}{SEED_MARK}{seed}" / task,
                    OneProcess(),
                )


def run(options: argparse.Namespace) -> int:
    """The whole study; returns the exit code."""
    settings = config.load(StudyConfig, options.config, options.settings)
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    check_same_study(settings, output)
    make_base(settings.base, output / "base")
    testset = make_test_clips(settings, output)
    plan = [(seed, training) for seed in range(settings.seeds) for training in trainings(settings.transfer)]
    with tqdm(plan, desc="trainings", unit="training") as bar:
        for seed, training in bar:
            bar.set_postfix_str(f"{training.name}, seed {seed}")
            if not train(train_config(training, settings, seed, output)):
                return INTERRUPTED
    restore_all(settings, output, testset)
    methods = sorted((output / "restored").iterdir())
    words = [word for method in methods for word in ("--restored", f"{method.name}={method}")]
    words += ["--ground-truth", str(testset / GROUND_TRUTH), "--degraded", str(testset / DEGRADED)]
    words += ["--masks", str(testset / MASKS), "--output", str(output / "report")]
    networks = ["--networks", str(options.networks)] if options.networks else []
    metrics = f"metrics=[{','.join(settings.metrics)}]"
    code = call("eval.py", *words, *networks, metrics, "report_videos=2", f"device={settings.device}")
    results = json.loads((output / "report" / "results.json").read_text())
    about = (
        f"Seeds: {settings.seeds}. Every training takes {settings.max_steps} steps of {settings.batch_size} rendered "
        f"clips of {settings.num_frames} frames at {settings.size} px; one that starts from another task's weights "
        f"takes as many on top of that task's. Tested on {settings.test_clips} held-out rendered clips of "
        f"{settings.test_frames} frames. A study of rendered faces at this length says nothing of real ones."
    )
    (output / "study.md").write_text(study_markdown(results, about))
    (output / "study.html").write_text(study_html(results, about, "report/report.html"))
    print(study_markdown(results, about))
    print(output / "study.html")
    return code


def check_same_study(settings: StudyConfig, output: Path) -> None:
    """Keep the settings beside the results.

    Raises:
        ValueError: the folder holds another study.
    """
    path = output / "study.json"
    if path.exists() and (before := json.loads(path.read_text())) != asdict(settings):
        changed = sorted(key for key, value in asdict(settings).items() if before.get(key) != value)
        raise ValueError(f"{output}: holds a study with other settings ({', '.join(changed)}); give another --output")
    write_json(path, asdict(settings))


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn what a user can cause into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the study")
    parser.add_argument("--config", type=Path, help="yaml file of settings")
    parser.add_argument("--networks", type=Path, help="folder of third-party networks (default: $SVFR_NETWORKS)")
    names = ", ".join(StudyConfig.__dataclass_fields__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"settings: {names}")
    options = parser.parse_intermixed_args(arguments)
    try:
        return run(options)
    except TrainingError as error:
        print(f"study.py: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"study.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
