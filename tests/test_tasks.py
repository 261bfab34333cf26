import pytest

from svfr.tasks import TASKS, parse_tasks, task_prompt


@pytest.mark.parametrize(
    ("given", "parsed", "prompt"),
    [
        ("bfr", ("bfr",), [1, 0, 0]),
        ("inpainting, bfr", ("bfr", "inpainting"), [1, 0, 1]),
        (["colorization", "colorization"], ("colorization",), [0, 1, 0]),
        (iter(["inpainting", "colorization"]), ("colorization", "inpainting"), [0, 1, 1]),
        (TASKS, TASKS, [1, 1, 1]),
    ],
)
def test_tasks_in_canonical_order(given: object, parsed: tuple[str, ...], prompt: list[int]) -> None:
    assert parse_tasks(given) == parsed  # type: ignore[arg-type]
    assert task_prompt(parsed).tolist() == prompt


@pytest.mark.parametrize("given", ["bfr,color", ["BFR"]])
def test_unknown_task_is_named_with_the_choices(given: object) -> None:
    with pytest.raises(ValueError, match=r"unknown task '(color|BFR)'.*bfr, colorization, inpainting"):
        parse_tasks(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["", " , ", []])
def test_no_task(given: object) -> None:
    with pytest.raises(ValueError, match="no task given"):
        parse_tasks(given)  # type: ignore[arg-type]
