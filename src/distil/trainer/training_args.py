"""DistILConfig: TRL's GRPOConfig plus what DistIL adds. Names of GRPOConfig keep their meaning.

Left out on purpose: samplers, schedulers, precision, sharding, logging: they are GRPOConfig's.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from trl import GRPOConfig

from distil.config import (
    Combine,
    CritiqueConfig,
    ObjectiveConfig,
    ServedConfig,
    ShadowDevice,
    SourceName,
    TeacherKind,
)
from distil.distributed.processes import check_one_gpu
from distil.errors import RecipeError, RunError, known_names, perhaps
from distil.feedback.sibling import SiblingChoice
from distil.prompts.messages import DEMONSTRATION_HEADER
from distil.recipe.algorithms import faults, resolved
from distil.recipe.checks import feedback_faults
from distil.recipe.critiquechecks import critique_faults
from distil.recipe.servedchecks import Names, served_faults
from distil.trainer.ownpolicy import changes
from distil.trainer.rowchecks import check_rows


def _help(default: Any, text: str) -> Any:
    """A field as transformers' parsers want it."""
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class DistILConfig(GRPOConfig):
    """Arguments of `DistILTrainer`.

    objective: a name ("distil", "grpo", ...), a dict of `distil.config.ObjectiveConfig`'s fields,
        or such a config itself; kept as a plain dict with every field filled in.
    critique: a dict of `distil.config.CritiqueConfig`'s fields, or such a config; kept in full too.
    teacher_served: likewise, of `distil.config.ServedConfig`'s.
    num_generations may be 1, which TRL refuses, for objectives that compare no rewards.
    Raises RecipeError where sampler and objective don't fit together
    (`distil.recipe.algorithms.faults`).
    """

    objective: Any = _help("distil", "Objective: a name, or a dict of ObjectiveConfig's fields.")
    num_generations: int = _help(8, "Rollouts of a prompt; 1 where no rewards are compared.")
    teacher: TeacherKind = _help("ema", "live, frozen, lora_off, ema or served.")
    teacher_served: Any = _help({}, "Where a served teacher is: a dict of ServedConfig's fields.")
    teacher_ema_rate: float = _help(0.01, "w <- (1-rate) w + rate student, once a step.")
    teacher_shadow_device: ShadowDevice = _help("same", "same or cpu: where the average lies.")
    teacher_samples: int = _help(0, "Completions a prompt that the teacher writes, graded.")
    teacher_gate: bool = _help(False, "Leave out prompts where the teacher is no better.")
    max_teacher_prompt_length: int = _help(10_240, "Tokens; feedback text is cut to fit.")
    feedback_order: list[str] = _help(["sibling", "report", "expert"], "Sources, best first.")
    feedback_combine: Combine = _help("first", "first: one source; all: a solution and reports.")
    max_feedback_tokens: int = _help(0, "Tokens that feedback may add to a prompt; 0: no limit.")
    demonstration_header: str = _help(DEMONSTRATION_HEADER, "Line above a demonstration.")
    sibling_choice: SiblingChoice = _help("shortest", "shortest, random or first.")
    critique: Any = _help({}, "Who writes critiques: a dict of CritiqueConfig's fields.")
    log_rollouts: int = _help(4, "Rollouts a step written with per-token values; -1: no file.")
    share_prompts: bool = _help(False, "Read a group's prompt once (distil.trainer.sharedprompts).")
    padding_free: bool = _help(True, "Student's pass without padding (distil.trainer.paddingfree).")
    rollouts_mb: float = _help(2000.0, "Megabytes of rollouts kept in files; 0: no bound.")
    disable_dropout: bool = _help(True, "Dropout would add noise to every cost and credit.")

    def __post_init__(self) -> None:
        if isinstance(self.feedback_order, str):  # one source, as a recipe takes it too
            self.feedback_order = [self.feedback_order]
        objective = as_objective(self.objective)
        self.objective = asdict(objective)
        self.scale_rewards = objective.scale_rewards
        generations = self.num_generations
        if generations == 1:  # TRL refuses it, for the advantages that aren't needed here
            self.num_generations = self._another_number_for_trl()
        super().__post_init__()
        self.num_generations = generations
        cut = self.top_p < 1 or self.top_k > 0 or bool(self.min_p) or self.repetition_penalty != 1
        found = faults(objective, sampler_is_cut=cut, num_generations=generations)
        if objective.top_k < 1 or objective.future_weight < 0 or objective.replay_batches < 0:
            found.append(
                f"objective.top_k ({objective.top_k}) must be at least 1, and future_weight "
                f"({objective.future_weight}) and replay_batches ({objective.replay_batches}) at "
                "least 0."
            )
        found += self._generation_faults(objective)
        critique = as_critique(self.critique)
        self.critique = asdict(critique)
        served = as_served(self.teacher_served)
        self.teacher_served = asdict(served)
        found += served_faults(
            self.teacher, served, objective,
            temperature=self.temperature, probe_samples=self.teacher_samples,
            names=Names("teacher_served", "teacher", "teacher_samples", "temperature"),
        )  # fmt: skip
        found += self._feedback_faults()
        found += critique_faults(
            critique, self.feedback_order, objective.name, names=("critique", "feedback_order")
        )
        if self.teacher_gate and self.teacher_samples < 1:
            found.append("teacher_gate needs teacher_samples of 1 or more to judge the teacher by.")
        if self.teacher_samples > generations:
            found.append(
                f"teacher_samples ({self.teacher_samples}) is more than num_generations "
                f"({generations}): one rollout's teacher prompt gives one sample. Lower it."
            )
        if found:
            raise RecipeError("These arguments don't go together:\n" + "\n".join(found))

    def _another_number_for_trl(self) -> int:
        """The least from 2 on that divides the rollouts of a generation batch, as TRL wants it.

        Raises RecipeError where a process has one rollout, which nothing of that kind divides.
        """
        each = self.per_device_train_batch_size
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        rollouts = self.generation_batch_size or each * steps
        if rollouts < 2:
            raise RecipeError(
                "num_generations is 1 and a generation batch has one rollout (a device), which TRL "
                "can't take. Raise per_device_train_batch_size or gradient_accumulation_steps."
            )
        return next(n for n in range(2, rollouts + 1) if rollouts % n == 0)

    def _generation_faults(self, objective: ObjectiveConfig) -> list[str]:
        """What generation_kwargs may not say: another temperature, or another policy."""
        given, found = dict(self.generation_kwargs or {}), []
        temperature = given.pop("temperature", self.temperature)
        if temperature != self.temperature:
            found.append(
                f"generation_kwargs has temperature {temperature}, and tokens are scored at "
                f"{self.temperature}. Set temperature itself, and leave it out there."
            )
        if objective.future != "none" and (other := changes(given)):
            found.append(
                f"generation_kwargs has {', '.join(other)}, which makes the sampler another policy "
                "than the one that is trained, and future credit would be biased. Leave it out, or "
                "set objective.future: none."
            )
        return found

    def _feedback_faults(self) -> list[str]:
        """Names and numbers that a recipe's parser would have refused."""
        named = [
            *(("feedback_order", name, SourceName) for name in self.feedback_order),
            ("feedback_combine", self.feedback_combine, Combine),
            ("sibling_choice", self.sibling_choice, SiblingChoice),
            ("teacher_shadow_device", self.teacher_shadow_device, ShadowDevice),
        ]
        return [
            *(
                f"{argument} has {name!r}, which there isn't.{known_names(name, get_args(known))}"
                for argument, name, known in named
                if name not in get_args(known)
            ),
            *feedback_faults(
                self.feedback_order,
                self.max_feedback_tokens,
                names=("feedback_order", "max_feedback_tokens"),
            ),
        ]


def checked_arguments(args: Any, train_dataset: Any, options: Mapping[str, Any]) -> DistILConfig:
    """The trainer's arguments, the defaults for None. Raises TypeError for another class's.

    options: the trainer's other arguments. Raises RunError for a dataset without rows or with rows
    that can't be trained on, TrainingError for one process with several GPUs.
    """
    if args is not None and not isinstance(args, DistILConfig):
        raise TypeError(
            f"args is a {type(args).__name__}, and must be a DistILConfig: it takes all of "
            "GRPOConfig's arguments and DistIL's beside them."
        )
    sized = train_dataset is not None and hasattr(train_dataset, "__len__")
    if sized and not len(train_dataset):
        raise RunError("The training dataset is empty: there is nothing to train on.")
    check_rows(train_dataset, options)
    args = args if args is not None else DistILConfig("distil-output")
    check_one_gpu(args.n_gpu)
    return args


def as_objective(given: Any) -> ObjectiveConfig:
    """A name, a dict or an ObjectiveConfig as a resolved ObjectiveConfig.

    Raises RecipeError for an unknown name or field.
    """
    if isinstance(given, ObjectiveConfig):
        return resolved(given)
    if isinstance(given, str):
        return resolved(ObjectiveConfig(name=given))
    if not isinstance(given, dict):
        raise RecipeError(
            f"objective is a {type(given).__name__}: give a name, a dict or an ObjectiveConfig."
        )
    return resolved(_from_fields(ObjectiveConfig, given, "An objective"))


def as_critique(given: Any) -> CritiqueConfig:
    """A dict or a CritiqueConfig as a CritiqueConfig. Raises RecipeError for an unknown field."""
    if isinstance(given, CritiqueConfig):
        return given
    if not isinstance(given, dict):
        raise RecipeError(f"critique is a {type(given).__name__}: give a dict or a CritiqueConfig.")
    return _from_fields(CritiqueConfig, given, "critique")


def as_served(given: Any) -> ServedConfig:
    """A dict or a ServedConfig as a ServedConfig. Raises RecipeError for an unknown field."""
    if isinstance(given, ServedConfig):
        return given
    if not isinstance(given, dict):
        raise RecipeError(
            f"teacher_served is a {type(given).__name__}: give a dict or a ServedConfig."
        )
    return _from_fields(ServedConfig, given, "teacher_served")


def _from_fields(kind: type[Any], given: dict[str, Any], what: str) -> Any:
    known = {f.name for f in fields(kind)}
    for name in given:
        if name not in known:
            raise RecipeError(f"{what} has no field {name!r}.{perhaps(name, known)}")
    return kind(**given)
