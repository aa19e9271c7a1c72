"""Published settings of evaluations by name: `distil eval MODEL --preset math-4b`.

Sources: arXiv 2606.05152 and the tasks' own papers. A preset lies over the
recipe's eval part and under flags. Where no length is published, the recipe's or the default one
stands.
"""

from dataclasses import replace
from typing import Any

from distil.config import EvalConfig
from distil.errors import RecipeError, known_names

EVAL_PRESETS: dict[str, dict[str, Any]] = {
    "sciknoweval": {"samples": 16, "temperature": 0.6, "top_p": 0.95},
    "livecodebench": {"samples": 16, "temperature": 0.2, "top_p": 0.95, "top_k": 20},
    "math-4b": {
        "samples": 64, "temperature": 0.7, "top_p": 0.95, "top_k": 20,
        "max_completion_length": 16_384,
    },
    "math-8b": {
        "samples": 64, "temperature": 1.0, "top_p": 1.0, "top_k": 0,
        "max_completion_length": 38_912,
    },
}  # fmt: skip


def with_preset(name: str, settings: EvalConfig, length: int) -> tuple[EvalConfig, int]:
    """Settings and length with the preset over them. Raises RecipeError for an unknown name."""
    if name not in EVAL_PRESETS:
        raise RecipeError(
            f"There is no preset of evaluations {name!r}.{known_names(name, EVAL_PRESETS)}."
        )
    part = dict(EVAL_PRESETS[name])
    length = part.pop("max_completion_length", length)
    return replace(settings, **part), length
