#!/usr/bin/env python
"""Evaluate folders of restored videos against their ground truth.

    python scripts/eval.py --restored [NAME=]DIR ... --ground-truth DIR [--degraded DIR] --output DIR [key=value ...]
    python scripts/eval.py --run --weights DIR --ground-truth DIR --degraded DIR --masks DIR --output DIR
    python scripts/eval.py --no-reference --restored [NAME=]DIR ... --output DIR [photo=FILE] [key=value ...]

A restored folder holds results by the names of the ground truth, with or without a subfolder for each task (bfr,
colorization, inpainting, bfr+colorization, ...). The output is results.json, table.md, table.tex, table.csv and
report.html with the folder report_files.
`torchrun` or `accelerate launch scripts/eval.py ...` splits the videos over processes and machines, `workers=N` the
measuring over N processes of this one. Run again, it does what is left.
Exit code: 0 all done, 1 some inputs failed or did not match, 2 the call itself was wrong.
"""

import argparse
import functools
import json
import sys
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import svfr
from svfr import config
from svfr.data.detectors import load_detector
from svfr.data.video import VideoError, probe
from svfr.evaluation.collect import collect
from svfr.evaluation.markdown import markdown_table
from svfr.evaluation.measure import Evaluator, measure_in_workers
from svfr.evaluation.pairs import Matches, Pair, match, parse_restored
from svfr.evaluation.records import Record, read_record
from svfr.evaluation.report import report_html
from svfr.evaluation.restoring import Runs, parse_weights, restore_set
from svfr.evaluation.results import RESULTS, Provenance, Results, find_provenance, gather
from svfr.evaluation.settings import EvalConfig
from svfr.evaluation.tables import cost_rows, paper_table, table_csv, table_markdown, table_tex
from svfr.files import replacing, write_json
from svfr.inference.processes import Processes
from svfr.inference.settings import InferConfig
from svfr.metrics import METRICS, build_metrics
from svfr.networks import NetworkMissing


def prepare(options: argparse.Namespace, settings: EvalConfig, device: str) -> tuple[Evaluator, dict[str, str]]:
    """The metrics that can be computed, and why others cannot; with `missing=fail` a ValueError if there are others."""
    faces = [name for name in settings.metrics if any(column.needs_faces for column in METRICS[name].columns)]
    detector, missing = None, {}
    try:
        detector = load_detector(settings.detector, options.networks) if faces else None
    except (NetworkMissing, ValueError) as error:  # its name is a known one
        missing = dict.fromkeys(faces, str(error))
    built = build_metrics(
        [name for name in settings.metrics if name not in missing],
        options.networks,
        device,
        recognizer=settings.recognizer,
        landmarker=settings.landmarker,
        download=settings.download,
        photo=Path(settings.photo) if settings.photo else None,
    )
    missing |= built.missing
    if missing and settings.missing == "fail":
        name, why = next(iter(missing.items()))
        raise ValueError(f"{', '.join(missing)} cannot be computed, missing=note goes on without; {name}: {why}")
    return Evaluator(built, detector, settings, options.output), missing


def evaluate_all(
    options: argparse.Namespace, evaluator: Evaluator, matches: Matches, device: str, share: Processes
) -> None:
    """Measure this process's share: all pairs of a ground truth, so that what is computed of it serves them all."""
    names = matches.names[share.process_index :: share.num_processes]
    by_truth: dict[Path, list[Pair]] = {}
    for pair in (pair for name in names for pair in matches.pairs if pair.name == name):
        by_truth.setdefault(pair.truth, []).append(pair)
    groups, total = list(by_truth.values()), 0
    for pairs in groups:
        with suppress(VideoError):  # named when its turn comes
            total += len(pairs) * probe(pairs[0].truth).num_frames
    workers = evaluator.settings.workers
    make = functools.partial(prepare, options, evaluator.settings, device)
    with svfr.bar(total, "frame", "evaluate", share.is_main_process) as bar:
        records = (record for pairs in groups for record in evaluator.evaluate(pairs, bar.update))
        with closing(measure_in_workers(evaluator, make, workers, groups) if workers > 1 else records) as records:
            for record in records:
                bar.update(record.num_frames if workers > 1 else 0)
                for problem in record.all_problems():
                    svfr.error(str(problem))


def write_results(evaluator: Evaluator, matches: Matches, missing: dict[str, str], provenance: Provenance) -> Results:
    """Read the records of all processes and write all files of the output."""
    records: dict[Pair, Record] = {}
    for pair in matches.pairs:
        key = evaluator.cache_key(pair)
        kept = read_record(evaluator.output, pair, key)
        record = kept or Record(pair.method, pair.task, pair.name, "failed", key, reason="not finished")
        records[pair] = replace(record, fps=provenance.rates.get(pair.truth.resolve(), record.fps))
    results, common = gather(matches, records, evaluator, missing, provenance)
    write_json(evaluator.output / RESULTS, results.as_json())
    for name, text in (
        ("table.md", table_markdown(results, common)),
        ("table.tex", table_tex(common)),
        ("table.csv", table_csv(common)),
        ("report.html", report_html(results, common, records, evaluator)),
    ):
        with replacing(evaluator.output / name) as partial:
            partial.write_text(text)
    return results


def run(options: argparse.Namespace) -> int:
    """Check the call and evaluate; returns the exit code."""
    svfr.quiet = options.quiet
    words = [*options.settings, *(["no_reference=true"] if options.no_reference else [])]
    settings = config.load(EvalConfig, options.config, words)
    if (options.ground_truth is None) != settings.no_reference:
        raise ValueError("give --ground-truth DIR, or --no-reference where there is none")
    if not (options.restored or options.collect or options.run):
        raise ValueError("nothing to evaluate: give --restored [NAME=]DIR, --collect NAME=DIR, or --run")
    if options.weights and not options.run:
        raise ValueError("--weights is for --run")
    for path in (options.degraded, options.masks, settings.photo and Path(settings.photo)):
        if path and not path.exists():
            raise ValueError(f"{path}: no such file or folder")
    methods = parse_restored(options.restored)

    def load(overrides: list[str]) -> InferConfig:
        given = [*words, *(f"restore.{word}" for word in overrides)]
        return config.load(EvalConfig, options.config, given).restore

    runs = parse_weights(options.weights or ["released"], methods, load) if options.run else {}
    share = Processes()
    with share.alone_in(options.output):
        return evaluate(options, settings, methods, runs, share)


def evaluate(
    options: argparse.Namespace, settings: EvalConfig, methods: dict[str, Path], runs: Runs, share: Processes
) -> int:
    """Restore, measure and report; returns the exit code."""
    truth, degraded, masks, output = options.ground_truth, options.degraded, options.masks, options.output
    device = share.device(settings.device)
    if runs and settings.missing == "fail":
        prepare(options, settings, device)  # or it would fail after hours of restoring
    methods |= collect(options.collect, [*methods, *runs], output, settings.task, write=share.is_main_process)
    share.wait_for_everyone()
    restored, failed = restore_set(runs, degraded, masks, output, settings.task, options.networks, share)
    methods = {**methods, **restored}
    matches = match(
        truth, methods, degraded, masks, output=output, task=settings.task, baselines=settings.baselines, failed=failed
    )
    if settings.num_videos is not None and len(matches.names) != settings.num_videos:
        raise ValueError(f"{truth}: {len(matches.names)} videos, the protocol has {settings.num_videos} (num_videos)")
    provenance = find_provenance(truth or output, methods, settings.task)
    evaluator, missing = prepare(options, settings, device)
    if share.is_main_process:
        unmatched = [problem for problem in matches.problems if problem not in failed]  # those were shown at once
        for line in (*map(str, unmatched), *(f"{name}: not computed: {why}" for name, why in missing.items())):
            svfr.error(line)
    evaluate_all(options, evaluator, matches, device, share)
    share.wait_for_everyone()
    if not share.is_main_process:
        return 0  # the main process speaks for all
    results = write_results(evaluator, matches, missing, provenance)
    done = sum(record.status == "done" for record in results.rows)
    count, report = len(results.problems), str(output / "report.html")
    if options.json:
        numbers = {"rows": done, "problems": count, "report": report}
        print(json.dumps({**numbers, "aggregates": results.as_json()["aggregates"]}))
    else:
        tables = [] if options.quiet else [paper_table(results), markdown_table(cost_rows(results))]
        print(*filter(None, tables), f"{done} rows, {count} problem{'' if count == 1 else 's'}: {report}", sep="\n\n")
    return 1 if results.problems else 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restored", action="append", default=[], metavar="[NAME=]DIR", help="results of a method")
    others = "results as GPEN, KEEP, CodeFormer, PGTFormer or DicFace leave them; NAME begins with the method's"
    parser.add_argument("--collect", action="append", default=[], metavar="NAME=DIR", help=others)
    parser.add_argument("--ground-truth", type=Path, help="videos, frame folders or images")
    parser.add_argument("--no-reference", action="store_true", help="score each video by itself, without ground truth")
    parser.add_argument("--degraded", type=Path, help="degraded inputs, laid out like the results")
    parser.add_argument("--masks", type=Path, help="masks of the inpainting task, white = hole, or one mask for all")
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--run", action="store_true", help="restore --degraded first")
    parser.add_argument(
        "--weights",
        action="append",
        metavar="[NAME[:TASK]=]WEIGHTS[,key=value ...]",
        help="of --run (default: released), for all tasks or one, with settings of scripts/infer.py",
    )
    parser.add_argument("--quiet", action="store_true", help="show errors and the last line alone")
    parser.add_argument("--json", action="store_true", help="print the means of results.json alone on stdout")
    parser.add_argument("--config", type=Path, help="yaml file of settings, such as configs/eval_vfhq.yaml")
    parser.add_argument("--networks", type=Path, help="folder of third-party networks (default: $SVFR_NETWORKS)")
    parser.add_argument("settings", nargs="*", metavar="key=value", help=", ".join(EvalConfig.__dataclass_fields__))
    options = parser.parse_intermixed_args(arguments)
    return config.run_command("eval.py", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
