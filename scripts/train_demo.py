#!/usr/bin/env python
"""Train the bundled model from nothing, on rendered faces: VAE, ID network, SVFR.

    python scripts/train_demo.py --config configs/demo_64.yaml [key=value ...]      (the bundled model)
    python scripts/train_demo.py --config configs/demo_128.yaml [key=value ...]     (a larger one, never run)

Each step has a gate before the next. Run again, it goes on where it was stopped; the model is in OUTPUT_DIR/model.
Exit code: 0 all steps done, 1 stopped before or a gate not passed, 2 the call itself was wrong.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from svfr import config
from svfr.demo.build import ship, write_card
from svfr.demo.curves import draw_curves
from svfr.demo.settings import DemoConfig
from svfr.demo.steps import GATED, GateError, check_renderer, make_identity, make_init, make_vae, read_gate
from svfr.models.devices import resolve_device
from svfr.models.weights import WeightsError
from svfr.training.loop import TrainingError, train
from svfr.training.run_folder import find_newest

STEPS = ("renderer", "vae", "identity", "svfr")


def run(options: argparse.Namespace) -> int:
    """All steps up to the one that is asked for; returns the exit code."""
    settings = config.load(DemoConfig, options.config, options.settings)
    folder, device = Path(settings.output_dir), resolve_device(settings.device)
    wanted = STEPS[: STEPS.index(options.until) + 1]
    check_renderer(settings, folder)
    if "vae" not in wanted:
        return 0
    vae = make_vae(settings, folder, device)
    if "identity" not in wanted:
        return 0
    id_encoder = make_identity(settings, folder, device)
    if "svfr" not in wanted:
        return 0
    init = make_init(settings, folder, vae, id_encoder)
    run_folder = folder / "svfr"
    finished = train(replace(settings.train, init_from=str(init), output_dir=str(run_folder), seed=settings.seed))
    weights = find_newest(run_folder / "weights", print)
    if weights is None:
        return 1
    step, newest = weights
    model = folder / "model"
    size = ship(newest, model)
    gates = [gate for name in GATED if (gate := read_gate(folder / name)) is not None]
    facts = [f"{gate.measure}: {gate.value:.4g} (gate: {gate.least:.4g})" for gate in gates]
    write_card(model, settings, step, size, facts)
    # What is shipped names no folder of this machine.
    config.save(replace(settings, output_dir=DemoConfig.output_dir), model / "config.yaml")
    try:
        draw_curves(run_folder / "metrics.jsonl", model / "curves.png")
    except ValueError as error:
        print(f"no curves.png: {error}")
    print(f"{model}: weights of step {step}, {size / 2**20:.1f} MiB; use them with --weights {model}")
    return 0 if finished else 1


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="configs/demo_64.yaml or demo_128.yaml")
    parser.add_argument("--until", choices=STEPS, default=STEPS[-1], help="the last step to do")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings, such as train.max_steps=2000")
    options = parser.parse_intermixed_args(arguments)
    try:
        return run(options)
    except GateError as error:
        print(f"train_demo.py: {error}", file=sys.stderr)
        return 1
    except (TrainingError, FloatingPointError) as error:
        print(f"train_demo.py: {error}", file=sys.stderr)
        return 1
    except (WeightsError, ValueError, OSError) as error:
        print(f"train_demo.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
