#!/usr/bin/env python
"""Measure this machine with the model; `bench.py NAME --help` says what a benchmark prints.

Exit code: 0 measured, 1 a check of the benchmark failed or a measurement died, 2 the call itself was wrong.
"""

import argparse
import sys
from concurrent.futures.process import BrokenProcessPool

import torch
from benchmarks import eval as evaluation
from benchmarks import infer, prep, released, train

BENCHMARKS = {"infer": infer, "eval": evaluation, "prep": prep, "train": train, "released": released}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="NAME")
    for name, benchmark in BENCHMARKS.items():
        description = benchmark.__doc__ or ""
        command = commands.add_parser(
            name,
            help=description.splitlines()[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        benchmark.add_arguments(command)
        command.set_defaults(run=benchmark.run)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    options = parse_arguments(arguments)
    try:
        return options.run(options)
    except (BrokenProcessPool, torch.OutOfMemoryError):
        print("bench.py: a measurement died, most likely for want of memory", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"bench.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
