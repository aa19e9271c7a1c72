"""Loggers that figures are reported to: is there such a one, and is its package installed?

transformers says neither before the model is loaded, and judged. Left out: the loggers themselves,
which are transformers' callbacks; what they are sent (docs/metrics.md).
"""

from collections.abc import Callable, Sequence

from transformers import integrations

from distil.errors import RecipeError, known_names

INSTALLED: dict[str, Callable[[], bool]] = {
    "tensorboard": integrations.is_tensorboard_available,
    "trackio": integrations.is_trackio_available,
    "wandb": integrations.is_wandb_available,
}
"""Loggers whose package pip knows by the same name."""


def check_loggers(report_to: Sequence[str], name: str = "report_to") -> None:
    """Raises RecipeError for a logger that transformers doesn't know, or that isn't installed.

    name: what the field is called where it was written. Of the loggers that aren't in INSTALLED
    only the name is checked.
    """
    for logger in report_to:
        try:
            integrations.get_reporting_integration_callbacks([logger])
        except ValueError as error:
            raise RecipeError(
                f"{name} has {logger!r}, and there is no such logger."
                f"{known_names(logger, list(INSTALLED))}."
            ) from error
    missing = [n for n in dict.fromkeys(report_to) if n in INSTALLED and not INSTALLED[n]()]
    if missing:
        raise RecipeError(
            f"{name} asks for {' and '.join(missing)}, which isn't installed here. Run "
            f"`pip install {' '.join(missing)}`, or leave it out: metrics.jsonl has every figure "
            "anyway."
        )
