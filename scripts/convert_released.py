#!/usr/bin/env python
"""Convert the files of the released SVFR into one model folder (safetensors, diffusers layout).

python scripts/convert_released.py --svd DIR --unet unet.pth --id-linear id_linear.pth --arcface F.pth --output DIR
"""

import argparse
import sys
from pathlib import Path

import torch

from svfr import SVFRPipeline
from svfr.files import replacing
from svfr.models.lora import parse_lora
from svfr.models.weights import WeightsError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def main() -> int:
    """Convert; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svd", type=Path, required=True, help="folder of stable-video-diffusion-img2vid-xt")
    parser.add_argument("--unet", type=Path, required=True, help="unet.pth")
    parser.add_argument("--id-linear", type=Path, required=True, help="id_linear.pth")
    parser.add_argument("--arcface", type=Path, required=True, help="insightface_glint360k.pth")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the written weights")
    parser.add_argument("--lora", metavar="DIR[:WEIGHT]", help="folder that training with lora.rank wrote, to merge")
    options = parser.parse_args()
    try:
        if options.output.exists() and any(options.output.iterdir()):
            raise WeightsError(f"{options.output}: not empty; choose another folder")
        pipe = SVFRPipeline.from_released(
            options.svd, options.unet, options.id_linear, options.arcface, device="cpu", dtype=torch.float32
        )
        if options.lora is not None:
            pipe.load_lora_weights(*parse_lora(options.lora))
            pipe.fuse_lora()
        pipe.to(DTYPES[options.dtype])
        with replacing(options.output) as partial:
            pipe.save_pretrained(partial)
    except (WeightsError, OSError) as error:
        print(f"convert_released.py: {error}", file=sys.stderr)
        return 2
    print(f"written to {options.output}; use it with --weights {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
