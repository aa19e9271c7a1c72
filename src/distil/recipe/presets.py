"""Published settings by name, as parts of a recipe: `preset: sdpo-science`, or the flag `--preset`.

Sources: the authors' paper and released scripts (arXiv 2606.05152), SDPO (2601.20802), OPSD
(2601.18734). A preset names no model and no task. Written in a recipe file it's what the file
starts from; given as a flag it overrides the file.

Where a published setting would be wrong or can't be, ours differs, and only here:
  - distil-*: forward costs over the teacher's top-K with a tail, the leave-one-out baseline, and
    the published scaling of future credit (`mean`), which the learning rates were tuned with.
  - distil-math: no top-p, no top-k: future credit on a cut sampler's rollouts is biased.
  - opsd-math: both sides' top-K joined, with a tail. Over the teacher's alone and renormalised, as
    in the code it comes from, the student's other probability would cost nothing.
`as-released-*` are the released losses, defects included, to compare against; never to train with.
"""

from dataclasses import asdict
from typing import Any

from distil.config import ObjectiveConfig
from distil.errors import RecipeError, known_names
from distil.recipe.algorithms import resolved

_Part = dict[str, Any]

_ROLLOUTS = {
    "prompts_per_step": 32, "num_generations": 8, "max_completion_length": 8192,
    "temperature": 1.0, "top_p": 1.0, "top_k": 0,
}  # fmt: skip
_TRAIN = {"weight_decay": 0.01, "max_grad_norm": 1.0, "num_iterations": 1}
_SIBLING = {"order": ["sibling"]}
_SIBLING_OR_REPORT = {"order": ["sibling", "report"]}


def _science(objective: _Part, rate: float, ema: float) -> _Part:
    train = {**_TRAIN, "learning_rate": rate, "warmup_steps": 10, "updates_per_batch": 1}
    return {
        "feedback": _SIBLING,
        "teacher": {"kind": "ema", "ema_rate": ema, "max_prompt_length": 10_240},
        "objective": {"top_k": 100, **objective},
        "rollout": _ROLLOUTS,
        "train": train,
    }


def _coding(objective: _Part) -> _Part:
    train = {**_TRAIN, "learning_rate": 1e-6, "warmup_steps": 0, "updates_per_batch": 32}
    return {
        "feedback": _SIBLING_OR_REPORT,
        "teacher": {"kind": "ema", "ema_rate": 0.01, "max_prompt_length": 10_240},
        "objective": {"top_k": 20, **objective},
        "rollout": _ROLLOUTS,
        "train": {**train, "micro_batch": 8},
    }


def _math(objective: _Part, *, cut_sampler: bool) -> _Part:
    cut = {"top_p": 0.95, "top_k": 20} if cut_sampler else {"top_p": 1.0, "top_k": 0}
    return {
        "model": {"lora": {"rank": 64, "alpha": 128, "target_modules": "all-linear"}},
        "feedback": {"order": ["expert"]},
        "teacher": {"kind": "frozen"},
        "objective": {"top_k": 100, **objective},
        "rollout": {
            "prompts_per_step": 32, "num_generations": 1, "max_completion_length": 16_384,
            "temperature": 0.7, **cut,
        },
        "train": {
            **_TRAIN, "learning_rate": 5e-6, "warmup_steps": 0, "max_grad_norm": 0.1,
            "steps": 100, "updates_per_batch": 1,
        },
    }  # fmt: skip


def _grpo(rate: float, updates: int) -> _Part:
    train = {**_TRAIN, "learning_rate": rate, "warmup_steps": 10, "updates_per_batch": updates}
    objective = {"name": "grpo", "scale_rewards": "none"}
    return {"objective": objective, "rollout": _ROLLOUTS, "train": train}


_DISTIL = {
    "name": "distil", "future": "mean", "support": "teacher", "tail": True, "baseline": True,
    "credit_end": True,
}  # fmt: skip

PRESETS: dict[str, _Part] = {
    "distil-science": _science(_DISTIL, 5e-5, 0.01),
    "distil-coding": _coding({**_DISTIL, "ratio": "token_clipped", "ratio_clip": 2.0}),
    "distil-math": _math(_DISTIL, cut_sampler=False),
    "sdpo-science": _science({"name": "jensen_shannon", "support": "student"}, 1e-5, 0.05),
    "sdpo-coding": _coding({"name": "reverse_kl", "support": "student"}),
    "opsd-math": _math({"name": "jensen_shannon", "support": "joined"}, cut_sampler=True),
    "grpo-off-policy": _grpo(1e-6, 4),
    "grpo-on-policy": _grpo(1e-5, 1),
    "as-released-science": _science(
        {
            "name": "distil", "future": "mean", "support": "student", "tail": True,
            "baseline": False, "credit_end": True, "ratio": "token_clipped", "ratio_clip": 2.0,
            "reduction": "sequences",
        },
        5e-5,
        0.01,
    ),
    "as-released-math": _math(
        {"name": "as_released_math", "support": "teacher", "tail": False}, cut_sampler=True
    ),
}  # fmt: skip


def preset(name: str) -> dict[str, Any]:
    """A preset's part of a recipe, its name included. Raises RecipeError for an unknown one."""
    if name not in PRESETS:
        raise RecipeError(f"There is no preset {name!r}.{known_names(str(name), PRESETS)}.")
    part = PRESETS[name]
    # Every field of the objective, so that nothing of another one is left under the flag.
    objective = asdict(resolved(ObjectiveConfig(**part["objective"])))
    return {"preset": name, **part, "objective": objective}


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts laid over each other: `above` wins wherever both have a field."""
    both = dict(below)
    for key, value in above.items():
        under = both.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            both[key] = merged(under, value)
        else:
            both[key] = value
    return both
