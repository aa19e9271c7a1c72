"""DistILConfig: TRL's GRPOConfig plus what DistIL adds. Names of GRPOConfig keep their meaning.

Left out on purpose: samplers, schedulers, precision, sharding, logging: they are GRPOConfig's.
"""

from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

from distil.config import Divergence, FutureCredit, TeacherKind
from distil.errors import RecipeError
from distil.prompts import DEMONSTRATION_HEADER


def _help(default: Any, text: str) -> Any:
    """A field as transformers' parsers want it."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class DistILConfig(GRPOConfig):
    """Arguments of `DistILTrainer`.

    Raises RecipeError where sampling and objective don't fit together: updates on stale rollouts
    (steps_per_generation or num_iterations beyond one update), a sampler cut by top_p, top_k, min_p
    or repetition_penalty under future credit, both of which would bias the gradient.
    """

    divergence: Divergence = _help("forward_cross_entropy", "The cost at one token.")
    future: FutureCredit = _help(
        "sum", "Future credit: sum (exact), mean (published, biased), none."
    )
    future_weight: float = _help(1.0, "Factor on the future credit.")
    discount: float = _help(1.0, "Per-token discount of future cost; 1 is exact.")
    baseline: bool = _help(True, "Subtract the group's leave-one-out mean of the credit.")
    support_top_k: int = _help(100, "Support: the teacher's K likeliest tokens.")
    support_tail: bool = _help(True, "One bucket for all other tokens; false renormalises.")
    teacher: TeacherKind = _help("live", "live, frozen, lora_off or ema.")
    teacher_ema_rate: float = _help(0.01, "w <- (1-rate) w + rate student, once a step.")
    max_teacher_prompt_length: int = _help(10_240, "Tokens; feedback text is cut to fit.")
    feedback_order: list[str] = _help(["sibling", "report", "expert"], "Sources, best first.")
    demonstration_header: str = _help(DEMONSTRATION_HEADER, "Line above a demonstration.")
    sibling_choice: str = _help("shortest", "shortest, random or first.")
    log_rollouts: int = _help(4, "Rollouts a step written with per-token values; -1: no file.")
    disable_dropout: bool = _help(True, "Dropout would add noise to every cost and credit.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradient_accumulation_steps % (self.steps_per_generation * self.num_iterations):
            raise RecipeError(
                f"steps_per_generation ({self.steps_per_generation}) x num_iterations "
                f"({self.num_iterations}) must divide gradient_accumulation_steps "
                f"({self.gradient_accumulation_steps}): otherwise later updates see rollouts of an "
                "older policy, and this version has no importance ratio to correct for it."
            )
        cut = self.top_p < 1 or self.top_k > 0 or bool(self.min_p) or self.repetition_penalty != 1
        if cut and self.future != "none":
            raise RecipeError(
                "top_p, top_k, min_p or repetition_penalty make the sampler another policy than "
                "the one that is trained, which biases future credit. Leave them off, or set "
                "future='none' (local credit may be taken on any sampler's states)."
            )
        if self.support_top_k < 1 or self.future_weight < 0:
            raise RecipeError(
                f"support_top_k ({self.support_top_k}) must be at least 1 and future_weight "
                f"({self.future_weight}) at least 0."
            )
