"""The ranges of settings that are numbers."""

from __future__ import annotations

from bsa_lightning.errors import UserError

LARGEST_SEED = 2**63 - 1


def refuse_count(name: str, value: object, *, least: int = 1, most: int = 2**31 - 1) -> None:
    """Refuses what is not a whole number from ``least`` to ``most``; a truth value is no number.

    Raises:
        UserError: naming the setting, its value and the range.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UserError(f"{name} is {value!r}, but must be a whole number from {least} to {most}")


def refuse_seed(name: str, value: object) -> None:
    """Refuses what is not a seed: a whole number from 0 to 2**63 - 1.

    Raises:
        UserError: naming the setting, its value and the range.
    """
    refuse_count(name, value, least=0, most=LARGEST_SEED)


def refuse_share(name: str, value: object) -> None:
    """Refuses what is not a number from 0 to 1.

    Raises:
        UserError: naming the setting, its value and the range.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:  # NaN is in no range
        raise UserError(f"{name} is {value!r}, but must be a share from 0 to 1")
