"""The study's tables and sentences, on made results."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from svfr.evaluation import study
from svfr.evaluation.study_settings import StudyConfig
from svfr.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]


def made(**psnr: list[float]) -> dict[str, Any]:
    """results.json with PSNR by way of training and seed, and VIDD at a tenth of it."""
    aggregates: list[dict[str, Any]] = [
        {"method": f"{way}_seed{seed}", "task": "bfr", "metrics": {"psnr": value, "vidd": value / 10, "ssim": None}}
        for way, values in psnr.items()
        for seed, value in enumerate(values)
    ]
    return {"aggregates": [{"method": "degraded", "task": "bfr", "metrics": {"psnr": 20.0, "vidd": 1.5}}, *aggregates]}


RESULTS = made(single=[25.0, 26.0, 27.0], multi=[26.0, 27.5, 26.5], multi_ulr=[27.0, 28.0, 27.0])


def test_differences_pair_the_seeds() -> None:
    found = study.answers(study.by_way(RESULTS), study.QUESTIONS[0])
    psnr, vidd = found
    assert (psnr.column, psnr.differences, psnr.wins) == ("psnr", [1.0, 1.5, -0.5], 2)
    assert vidd.differences == pytest.approx([0.1, 0.15, -0.05])
    assert vidd.wins == 1  # lower is better
    assert psnr.verdict() == "better in 2 of 3"
    ulr = study.answers(study.by_way(RESULTS), study.QUESTIONS[1])
    assert [answer.verdict() for answer in ulr] == ["better", "worse"]


def test_sentences_state_what_is_seen() -> None:
    found = study.answers(study.by_way(RESULTS), study.QUESTIONS[0])
    line = study.sentence(study.QUESTIONS[0], found)
    assert line.startswith("multi is better than single task in 3 of 6 comparisons")
    assert line.endswith("equal ones left out): chance gives as much.")
    worse = made(single=[25.0] * 10, multi=[24.0] * 9 + [26.0])
    only_psnr = [a for a in study.answers(study.by_way(worse), study.QUESTIONS[0]) if a.column == "psnr"]
    # One success of ten: 2 * 11 / 1024 = 0.021.
    assert study.sentence(study.QUESTIONS[0], only_psnr).endswith("less than chance gives.")
    same = study.answers(study.by_way(made(single=[25.0], multi=[25.0])), study.QUESTIONS[0])
    assert [answer.verdict() for answer in same] == ["equal", "equal"]
    assert "0 of 0 comparisons" in study.sentence(study.QUESTIONS[0], same)
    assert study.sentence(study.QUESTIONS[0], []) == "Not answered: nothing to compare."


def test_tables_show_means_over_seeds_and_baselines() -> None:
    ((name, rows),) = study.tables(RESULTS)
    assert name == "BFR"
    assert rows[0] == ["", "PSNR [dB] ↑", "VIDD ↓"]
    assert rows[1] == ["single task", "26.000 ± 1.000", "2.600 ± 0.100"]
    assert rows[-1] == ["degraded", "20.000", "1.500"]
    page = study.study_html(RESULTS, "about <this>", "report/report.html")
    assert "about &lt;this&gt;" in page
    assert "Does training on all tasks help" in page
    text = study.study_markdown(RESULTS, "about")
    assert "| BFR  | PSNR [dB] ↑ | +0.6667" in text


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study_script", ROOT / "scripts" / "study.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_training_starts_from_one_before_it(script: ModuleType) -> None:
    names: list[str] = []
    for training in script.trainings(transfer=True):
        assert training.start is None or training.start in names
        names.append(training.name)
    assert len(names) == len(set(names)) == 9
    assert len(script.trainings(transfer=False)) == 6
    methods: dict[str, list[str]] = {}
    for method, name, tasks, _ in script.restorations(True):
        assert name in names
        methods.setdefault(method, []).extend(tasks)
    assert methods.keys() == study.WAYS.keys()
    assert all(sorted(tasks) == sorted(TASKS) for tasks in methods.values())


def test_trainings_differ_in_what_they_are_about_alone(script: ModuleType, tmp_path: Path) -> None:
    settings = StudyConfig(max_steps=40, batch_size=3)
    made = {t.name: script.train_config(t, settings, 1, tmp_path) for t in script.trainings(False)}
    assert {name: (c.lambda_ulr, c.lambda_prior) for name, c in made.items() if name.startswith("multi")} == {
        "multi": (0.0, 0.0),
        "multi_ulr": (0.01, 0.0),
        "multi_ulr_fpl": (0.01, 0.1),
    }
    assert {c.batch_size * c.data.num_views for c in made.values()} == {6}
    assert {(c.seed, c.max_steps, c.init_from) for c in made.values()} == {(1, 40, str(tmp_path / "base"))}
    assert made["single_bfr"].data.task_weights == {"bfr": 1.0}


def test_another_study_is_not_overwritten(script: ModuleType, tmp_path: Path) -> None:
    script.check_same_study(StudyConfig(), tmp_path)
    script.check_same_study(StudyConfig(), tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(max_steps\)"):
        script.check_same_study(StudyConfig(max_steps=5), tmp_path)
