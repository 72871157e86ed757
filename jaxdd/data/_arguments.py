"""Check numbers that users pass, and convert them to plain Python types."""

import numbers


def integer(name: str, value: int, low: int, high: int) -> int:
    """Return an integer in low..high, from any integer type."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in {low}..{high}, got {value}.")
    return int(value)


def share(name: str, value: float, *, open_interval: bool = False) -> float:
    """Return a number in [0, 1], or in (0, 1)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}.")
    if not 0 <= value <= 1 or (open_interval and value in (0, 1)):
        interval = "(0, 1)" if open_interval else "[0, 1]"
        raise ValueError(f"{name} must lie in {interval}, got {value}.")
    return float(value)


def seed(value: int) -> int:
    """Return a seed in 0..2³² - 1."""
    return integer("seed", value, 0, 2**32 - 1)
