"""Named objectives: what `objective.name` stands for. No torch: recipes are checked with it.

    distil            forward cross-entropy, local and future credit (the paper's method)
    forward_kl        KL(teacher || student), local credit only (OPSD's direction)
    reverse_kl        KL(student || teacher), local credit only (SDPO)
    jensen_shannon    the divergence of SDPO's science setting and of OPSD's code, local only
    grpo              TRL's own loss, untouched; no teacher
    sft               cross-entropy on the demonstration; no teacher, no use of the rollout itself
    distil+grpo       distil, and beside it GRPO's advantage on every sampled token
    as_released_math  the published mathematics code's loss, its defects included

A recipe's own fields (future, support, ...) override what a name brings. A divergence of your own
needs no entry here: `objective.name: my_file.py:my_function` takes a function of (student_logps,
teacher_logps), both [batch, seq, support], that returns one cost a token, and puts it in distil's
place.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from distil.config import FutureCredit, ObjectiveConfig, Support
from distil.errors import RecipeError, known_names


@dataclass(frozen=True)
class Algorithm:
    """cost: a name in `distil.objectives.COSTS`, or None where no teacher is asked."""

    cost: str | None
    future: FutureCredit = "none"
    support: Support = "teacher"
    advantage_weight: float = 0.0


ALGORITHMS: dict[str, Algorithm] = {
    "distil": Algorithm("forward_cross_entropy", future="sum"),
    "forward_kl": Algorithm("forward_kl"),
    "reverse_kl": Algorithm("reverse_kl", support="student"),
    "jensen_shannon": Algorithm("jensen_shannon", support="student"),
    "grpo": Algorithm(None),
    "sft": Algorithm(None),
    "distil+grpo": Algorithm("forward_cross_entropy", future="sum", advantage_weight=1.0),
    "as_released_math": Algorithm("forward_cross_entropy"),
}


def algorithm(name: str) -> Algorithm:
    """What a name stands for. Raises RecipeError for an unknown one, listing those there are."""
    if ".py:" in name:
        if not (file := Path(name.rpartition(":")[0])).is_file():
            raise RecipeError(
                f"objective.name is {name!r}, but there is no file {str(file)!r}. A path is taken "
                "from the folder that the command runs in."
            )
        return replace(ALGORITHMS["distil"], cost=name)
    if name not in ALGORITHMS:
        raise RecipeError(
            f"There is no objective {name!r}.{known_names(name, ALGORITHMS)}; or your own as "
            "path/to/file.py:function."
        )
    return ALGORITHMS[name]


def resolved(objective: ObjectiveConfig) -> ObjectiveConfig:
    """The objective with every field that is None for "as the name has it" filled in."""
    named = algorithm(objective.name)
    return replace(
        objective,
        future=named.future if objective.future is None else objective.future,
        support=named.support if objective.support is None else objective.support,
        advantage_weight=named.advantage_weight
        if objective.advantage_weight is None
        else objective.advantage_weight,
    )


def faults(objective: ObjectiveConfig, *, sampler_is_cut: bool, num_generations: int) -> list[str]:
    """What is impossible about a resolved objective, one sentence each with the way out."""
    named, found = algorithm(objective.name), []
    rewards_count = objective.name == "grpo" or bool(objective.advantage_weight)
    if named.cost is None and objective.future != "none":
        found.append(
            f"objective.future is {objective.future}, but {objective.name} has no cost whose "
            "future could be credited. Leave it out, or choose another objective.name."
        )
    unread = _unread(objective, named)
    if unread:
        found.append(
            f"{', '.join(unread)} would do nothing under {objective.name}. Leave them out, or "
            "choose another objective.name."
        )
    backward = named.cost in ("reverse_kl", "jensen_shannon")
    if backward and objective.support == "teacher" and not objective.tail:
        found.append(
            f"{named.cost} over the teacher's top_k without a tail: whatever probability the "
            "student has elsewhere would cost nothing. Set objective.support: student or joined, "
            "or objective.tail: true."
        )
    if sampler_is_cut and objective.future != "none":
        found.append(
            "top_p, top_k, min_p or repetition_penalty make the sampler another policy than the "
            "one that is trained, and future credit would be biased. Leave them off, or set "
            "objective.future: none (local credit may be taken on any sampler's states)."
        )
    if num_generations == 1 and rewards_count:
        found.append(
            "rollout.num_generations is 1, and GRPO's advantage compares the rollouts of a prompt: "
            "with one there is nothing to compare. Set it to 2 or more."
        )
    if objective.prompt_weight == "pass_rate" and num_generations == 1:
        found.append(
            "objective.prompt_weight is pass_rate, but one rollout a prompt is solved always or "
            "never, so that every weight is 0. Set rollout.num_generations to 2 or more."
        )
    return found


def _unread(objective: ObjectiveConfig, named: Algorithm) -> list[str]:
    """Fields that are set and that this objective's loss never looks at."""
    released = objective.name == "as_released_math"
    if named.cost is not None and not released:
        unread = []
        if objective.first_error == "until" and objective.first_error_margin is None:
            unread.append("objective.first_error without objective.first_error_margin")
        if objective.replay_batches and objective.reduction == "sequences":
            unread.append("objective.reduction with objective.replay_batches")
        return unread
    off = {
        "advantage_weight": 0.0, "replay_batches": 0, "prompt_weight": "none",
        "max_teacher_entropy": None, "first_error_margin": None, "first_error": "from",
        "policy_space_clip": None, "reduction": "tokens",
    }  # fmt: skip
    if released:
        off = {"advantage_weight": 0.0, "replay_batches": 0, "future": "none"}
    return [f"objective.{f}" for f, value in off.items() if getattr(objective, f) != value]
