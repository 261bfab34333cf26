"""The benchmarks of scripts/bench.py, a module each: `add_arguments(parser)` and `run(options)`."""
