#!/usr/bin/env python
"""Train SVFR. Run the same command again to go on where it stopped.

    accelerate launch scripts/train.py --config configs/train.yaml init_from=SVD data.manifests=[DATA/manifest.jsonl]

Exit code: 0 trained to max_steps, 1 training could not go on, 2 the call itself was wrong, 130 stopped by a signal.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

import svfr
from svfr import config
from svfr.training.loop import TrainingError, train
from svfr.training.processes import Stopped
from svfr.training.run_folder import METRICS
from svfr.training.settings import TrainConfig

OUT_OF_MEMORY = (
    "out of memory: lower batch_size (and raise accumulate), data.num_frames or data.size, set "
    "gradient_checkpointing=true, or use FSDP (configs/accelerate)"
)


def run(options: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    svfr.quiet = options.quiet
    settings = config.load(TrainConfig, options.config, options.settings)
    try:
        is_done = train(settings)
    except Stopped:
        return 1
    except torch.OutOfMemoryError as error:
        raise TrainingError(OUT_OF_MEMORY) from error
    except (ValueError, OSError) as error:
        if "Traceback" in str(error):  # of a loader process, whose last line is the error's own
            error.args = (str(error).strip().splitlines()[-1].partition(": ")[2],)
        raise
    if is_done and os.environ.get("RANK", "0") == "0":  # the main process speaks for all
        folder = Path(settings.output_dir)
        measured = (folder / METRICS).read_text().splitlines()[-1]
        print(measured if options.json else f"{folder / 'weights'}: step {json.loads(measured)['step']}")
    return 0 if is_done else config.INTERRUPTED


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn what a user can cause into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiet", action="store_true", help="show errors and the last line alone")
    parser.add_argument("--json", action="store_true", help="print the last line of metrics.jsonl alone on stdout")
    parser.add_argument("--config", type=Path, help="yaml file of settings")
    names = ", ".join(TrainConfig.__dataclass_fields__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"settings: {names}; data.* has its own")
    options = parser.parse_intermixed_args(arguments)
    return config.run_command("train.py", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
