"""What settings can be: the error of one that cannot, and the checks that schemas share."""

from collections.abc import Sequence


class ConfigError(ValueError):
    """A setting that cannot be used; one line that names the key."""


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name}={value}: choose from {', '.join(choices)}")


def check_at_least(name: str, value: float | None, least: float) -> None:
    """Raises ConfigError unless `value` is None or a finite number of at least `least`."""
    if value is not None and not least <= value < float("inf"):  # nan is not, either
        raise ConfigError(f"{name}={value}: has to be a number of at least {least}")
