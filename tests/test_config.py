import errno
import inspect
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from svfr.config import INTERRUPTED, ConfigError, load, run_command
from svfr.inference.settings import InferConfig


@dataclass
class Inner:
    mode: Literal["slow", "fast"] | None = None
    n: int = 1


@dataclass
class Outer:
    format: Literal["mp4", "png"] = "mp4"
    names: list[Literal["psnr", "ssim"]] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)


def test_defaults_then_file_then_overrides(tmp_path: Path) -> None:
    assert load(InferConfig) == InferConfig()
    file = tmp_path / "infer.yaml"
    file.write_text("seed: 3\nsize: 256\nstrategy: released\n")
    config = load(InferConfig, file, ["size=128", "guidance_scale=1.5", "keep_known=false"])
    assert config == InferConfig(seed=3, size=128, strategy="released", guidance_scale=1.5, keep_known=False)
    assert isinstance(config, InferConfig)


def test_none_and_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load(InferConfig, tmp_path / "empty.yaml", ["size=null"]) == InferConfig()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("guidence_scale=2", ["guidence_scale", "guidance_scale"]),
        ("clip_lenght=2", ["clip_lenght", "clip_length"]),
        ("size=big", ["size", "big"]),
        ("keep_known=maybe", ["keep_known", "maybe"]),
        ("seed=null", ["seed"]),
        ("size=12.5", ["size", "12.5"]),
        ("size.width=3", ["size"]),
        ("strategy=chain", ["strategy=chain", "chained, released"]),
        ("dtype=float64", ["dtype=float64", "bfloat16"]),
        ("reference_frame=first", ["reference_frame=first", "best, last, none"]),
        ("face=none", ["face=none", "auto, aligned"]),
        ("detector=dlib", ["detector=dlib", "yunet"]),
        ("format=avi", ["format=avi", "mp4, png"]),
        ("num_inference_steps=0", ["num_inference_steps=0", "at least 1"]),
        ("size=0", ["size=0", "at least 1"]),
        ("clip_length=-1", ["clip_length=-1", "at least 1"]),
        ("decode_chunk_size=0", ["decode_chunk_size=0", "at least 1"]),
        ("overlap=-1", ["overlap=-1", "at least 0"]),
        ("guidance_scale=-0.5", ["guidance_scale=-0.5", "at least 0"]),
        ("seed=-1", ["seed=-1", "at least 0"]),
        ("crf=52", ["crf=52", "at most 51"]),
        ("size", ["'size'", "key=value"]),
        ("size=:", ["'size=:'", "not valid YAML"]),
        ("detector=[", ["'detector=['", "not valid YAML"]),
        ("detector=${nothing", ["detector"]),
    ],
)
def test_wrong_setting_is_one_line_that_names_the_key(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(InferConfig, overrides=[override])
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("format=avi", "format=avi: choose from mp4, png"),
        ("inner.mode=medium", "inner.mode=medium: choose from slow, fast"),
        ("names=[lpips]", "names[0]=lpips: choose from psnr, ssim"),
        ("format=null", "format: Incompatible value 'None' for field of type 'Literal[mp4, png]'"),
        ("inner.n=big", "inner.n: Value 'big' of type 'str' could not be converted to Integer"),
        ("inner.mod=fast", "inner.mod: Key 'mod' is no setting. Did you mean: 'mode'?"),
        ("fromat=png", "Key 'fromat' is no setting. Did you mean: 'format'?"),
    ],
)
def test_wrong_setting_is_named_with_its_value_and_the_choices(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(Outer, overrides=[override])
    assert str(error.value) == message


def test_choices_are_settings() -> None:
    settings = load(Outer, overrides=["format=png", "names=[ssim,psnr]", "inner.mode=fast"])
    assert settings == Outer("png", ["ssim", "psnr"], Inner("fast"))
    assert load(Outer, overrides=["inner.mode=null"]) == Outer()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_guidance_scale_has_to_be_a_number(value: str) -> None:
    with pytest.raises(ConfigError, match="guidance_scale"):
        load(InferConfig, overrides=[f"guidance_scale={value}"])


def test_the_first_wrong_key_of_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "infer.yaml"
    file.write_text("sede: 3\n")
    with pytest.raises(ConfigError, match=r"infer\.yaml: .*sede.*seed"):
        load(InferConfig, file)


@pytest.mark.parametrize("text", ["size: [1", "- 1\n- 2\n", "a: b: c\n"])
def test_file_that_holds_no_settings(tmp_path: Path, text: str) -> None:
    file = tmp_path / "infer.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(InferConfig, file)
    assert "infer.yaml" in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load(InferConfig, tmp_path / "none.yaml")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(InferConfig, tmp_path)


def test_every_setting_is_described() -> None:
    lines: list[str] = []
    for schema in InferConfig.__mro__[:-1]:
        lines += inspect.getsource(schema).split("    def ")[0].splitlines()
    settings = [index for index, line in enumerate(lines) if line.startswith("    ") and ": " in line and " = " in line]
    assert len(settings) == len(InferConfig.__dataclass_fields__)
    assert all(lines[index + 1].startswith('    """') for index in settings)


class Half(ValueError):
    exit_code = 1


def raising(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("run", "code", "line"),
    [
        (lambda: 7, 7, ""),
        (lambda: raising(ValueError("two\nlines")), 2, "name.py: two lines\n"),
        (lambda: raising(OSError(errno.ENOSPC, "No space", "file")), 2, "name.py: file: No space\n"),
        (lambda: raising(Half("half")), 1, "name.py: half\n"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), INTERRUPTED, "interrupted; run the same command again"),
    ],
)
def test_a_command_ends_with_a_code_and_a_line(
    run: Any, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run_command("name.py", run) == code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.startswith(line)
