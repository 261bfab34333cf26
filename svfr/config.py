"""Settings from yaml files and `key=value` overrides, and how a call ends. The only importer of OmegaConf."""

import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

INTERRUPTED = 130  # the shell's exit code of Ctrl-C
Schema = TypeVar("Schema")


class ConfigError(ValueError):
    """A setting that cannot be used; one line that names the key."""


def check_at_least(name: str, value: float | None, least: float, most: float | None = None) -> None:
    """Raises ConfigError unless `value` is None or a finite number of at least `least`, and at most `most`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and least <= value < float("inf")):  # nan is not, either
        raise ConfigError(f"{name}={value}: has to be a number of at least {least}")
    if value is not None and most is not None and value > most:
        raise ConfigError(f"{name}={value}: has to be at most {most}")


def check_least(settings: object, section: str = "", /, **least: float | tuple[float, float]) -> None:
    """`check_at_least` of each named field, by its least number or that and the most; a `section` ends in a dot."""
    for name, limits in least.items():
        low, high = limits if isinstance(limits, tuple) else (limits, None)
        check_at_least(section + name, getattr(settings, name), low, high)


def check_choices(settings: object) -> None:
    """Raises ConfigError unless each field that is a Literal holds one of its choices."""
    for name, kind in get_type_hints(type(settings)).items():
        if get_origin(kind) is Literal and getattr(settings, name) not in get_args(kind):
            raise ConfigError(f"{name}={getattr(settings, name)}: choose from {', '.join(map(str, get_args(kind)))}")


def load(schema: type[Schema], yaml: Path | None = None, overrides: Sequence[str] = ()) -> Schema:
    """Settings from the schema's defaults, then a yaml file, then `key=value` overrides.

    Raises:
        ConfigError: an unreadable file, an unknown key (the nearest valid one is named), a wrong type or value.
    """
    config = OmegaConf.structured(schema)
    where = ""
    try:
        if yaml is not None:
            where = f"{yaml}: "
            config = OmegaConf.merge(config, _load_mapping(yaml))
        where = ""
        for override in overrides:
            config = OmegaConf.merge(config, _parse_override(override))
        return cast(Schema, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise ConfigError(where + _describe(error)) from error


def make(schema: type[Schema], values: Mapping[str, Any]) -> Schema:
    """Settings from the schema's defaults and values by name, such as a function's keywords.

    Raises:
        ConfigError: an unknown name (the nearest valid one is named), a wrong type or value.
    """
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}  # NumPy's
    try:
        return cast(Schema, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain)))
    except OmegaConfBaseException as error:
        raise ConfigError(_describe(error)) from error


def _describe(error: OmegaConfBaseException) -> str:
    """One line that names the key, the value and, where there are any, the choices."""
    message, *details = str(error).splitlines()
    key = next((line.split(":")[1].strip() for line in details if "full_key" in line), "")
    if wrong := re.fullmatch(r"Invalid value '(.*)', expected one of \[(.*)\]", message):
        return f"{key}={wrong[1]}: choose from " + wrong[2].replace("'", "")
    message = re.sub(r" not in '\w+'", " is no setting", message)
    return message if not key or f"'{key}'" in message else f"{key}: {message}"


def _parse_override(override: str) -> DictConfig:
    if "=" not in override:
        raise ConfigError(f"'{override}': settings are given as key=value")
    try:
        return OmegaConf.from_dotlist([override])
    except YAMLError as error:
        raise ConfigError(f"'{override}': the value is not valid YAML ({' '.join(str(error).split())})") from error


def _load_mapping(path: Path) -> DictConfig:
    try:
        content = OmegaConf.load(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path}: has to hold settings as 'key: value' lines")
    return content


def save(config: object, path: Path) -> None:
    """Write settings, all of them, as a yaml file that `load` reads."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def one_line(error: BaseException) -> str:
    """The message of an error in one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def run_command(name: str, run: Callable[[], int], goes_on: bool = True) -> int:
    """Do what a command is for; a wrong call is said in one line, and SIGTERM stops as cleanly as Ctrl-C, whereafter
    the same command `goes_on` or begins anew.

    Returns:
        The exit code: that of `run`; of a ValueError or an OSError its `exit_code`, else 2; 130 if interrupted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of schedulers
    try:
        return run()
    except (ValueError, OSError) as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        print("interrupted" + ("; run the same command again to go on" if goes_on else ""), file=sys.stderr)
        return INTERRUPTED
