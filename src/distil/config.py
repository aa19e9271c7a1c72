"""The recipe's schema: what a YAML file or a flag may say, and every check on it.

Typed dataclasses only; reading YAML and flags is `distil.cli`'s, and nothing here imports torch.
Names that TRL's users know keep TRL's words. Each default is the vetted one (a test says so).
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from distil.errors import RecipeError, perhaps

FutureCredit = Literal["sum", "mean", "none"]
Divergence = Literal["forward_cross_entropy", "forward_kl", "reverse_kl", "jensen_shannon"]
TeacherKind = Literal["live", "frozen", "lora_off", "ema"]
SourceName = Literal["sibling", "report", "expert"]


@dataclass(frozen=True)
class TaskConfig:
    """What is asked, and how an answer is judged."""

    name: str = "chain_sum"
    """A reasoning-gym dataset."""
    options: dict[str, int | float | bool | str] = field(default_factory=dict)
    """The dataset's own options (as flags: --task.options min_terms 2 max_terms 3). They replace
    the recipe's, and naming another dataset drops the recipe's."""
    instruction: str = "Reply with only the final answer."
    """The format demand; it ends the student's prompt and the teacher's."""
    extract: Literal["last_number", "last_line", "answer_tag", "whole"] = "last_line"
    """Which part of a completion is its answer."""
    train_size: int = 200
    """Distinct problems to train on."""
    eval_size: int = 50
    """Distinct held-out problems; none of them is in the training set."""
    seed: int = 0
    """Decides which problems there are and which are held out."""


@dataclass(frozen=True)
class LoraSettings:
    """A LoRA adapter on the linear layers (rank 0: none, every weight is trained)."""

    rank: int = 0
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str = "all-linear"


@dataclass(frozen=True)
class ModelConfig:
    """Which model is trained."""

    name: str = "smollm2-135m-instruct"
    """The embedded model's name, a local folder, a .gguf file, or a hub id."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The weights' type; auto is float32 on a CPU and bfloat16 on an accelerator."""
    lora: LoraSettings = field(default_factory=LoraSettings)


@dataclass(frozen=True)
class FeedbackConfig:
    """Which feedback a rollout's teacher is shown."""

    order: tuple[SourceName, ...] = ("sibling", "report", "expert")
    """The first of these that a rollout has is what its teacher sees."""
    sibling: Literal["shortest", "random", "first"] = "shortest"
    """Which successful rollout of the group, where there are several."""
    demonstration_header: str = "A correct solution:"
    """The line above a demonstration in the teacher's prompt; "" for none."""


@dataclass(frozen=True)
class TeacherConfig:
    """Who scores the student's tokens."""

    kind: TeacherKind = "live"
    """live: today's student; frozen: the start model; lora_off: adapters off; ema: an average."""
    ema_rate: float = 0.01
    """w <- (1 - rate) w + rate student, once an optimiser step (ema only)."""
    max_prompt_length: int = 10_240
    """Tokens; a longer prompt loses feedback text, never question or header."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss: a local cost and the future credit."""

    name: Divergence = "forward_cross_entropy"
    """The cost c_t between teacher and student at one token."""
    future: FutureCredit = "sum"
    """Future credit: sum (exact), mean (published scaling, biased), or none."""
    future_weight: float = 1.0
    """Factor on the future credit."""
    discount: float = 1.0
    """Cost i steps ahead counts discount**(i-1); below 1 is biased."""
    baseline: bool = True
    """Subtract the group's leave-one-out mean of the credit (unbiased, less variance)."""
    top_k: int = 100
    """Support: the teacher's K likeliest tokens."""
    tail: bool = True
    """Add one bucket for all tokens outside the support; false renormalises both sides."""


@dataclass(frozen=True)
class RolloutConfig:
    """How the student is sampled."""

    prompts_per_step: int = 8
    num_generations: int = 8
    max_completion_length: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    use_vllm: bool = False
    """Sample with vLLM (the extra `distil[vllm]`) instead of transformers."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, and where to."""

    output_dir: str = "runs/distil"
    steps: int = 100
    learning_rate: float = 1e-6
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    micro_batch: int = 8
    """Rollouts in one forward and backward pass (memory against speed)."""
    gradient_checkpointing: bool = False
    save_every: int = 10
    """Steps between checkpoints; a killed run goes on from the last one."""
    keep_checkpoints: int = 1
    seed: int = 0
    log_rollouts: int = 4
    """Rollouts a step written with per-token cost and credit (the others without)."""
    report_to: tuple[str, ...] = ()
    """TRL's loggers: trackio, wandb, tensorboard."""


@dataclass(frozen=True)
class EvalConfig:
    """How a model is judged before and after, on the held-out problems."""

    samples: int = 8
    """Completions a problem; pass@k is printed up to this k."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    batch_size: int = 64
    seed: int = 1234
    teacher_samples: int = 2
    """Completions a problem by the teacher shown the expert's answer (0: don't look)."""


@dataclass(frozen=True)
class Recipe:
    """A whole run. `check()` has passed on every Recipe that `distil.cli` hands out."""

    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dicts and lists, as YAML and JSON want them."""
        plain: dict[str, Any] = asdict(self)
        plain["feedback"]["order"] = list(self.feedback.order)
        plain["train"]["report_to"] = list(self.train.report_to)
        return plain


def check_recipe(recipe: Recipe) -> Recipe:
    """Returns the recipe, or raises RecipeError with every impossible value in it, one a line."""
    faults = [*_ranges(recipe), *_combinations(recipe)]
    if faults:
        raise RecipeError(
            "This recipe can't run:\n" + "\n".join(f"  - {fault}" for fault in faults)
        )
    return recipe


def _ranges(recipe: Recipe) -> list[str]:
    """Values that are impossible by themselves."""
    at_least: dict[str, tuple[float, int]] = {
        "task.train_size": (recipe.task.train_size, 1),
        "task.eval_size": (recipe.task.eval_size, 0),
        "model.lora.rank": (recipe.model.lora.rank, 0),
        "teacher.max_prompt_length": (recipe.teacher.max_prompt_length, 16),
        "objective.top_k": (recipe.objective.top_k, 1),
        "rollout.prompts_per_step": (recipe.rollout.prompts_per_step, 1),
        "rollout.num_generations": (recipe.rollout.num_generations, 2),
        "rollout.max_completion_length": (recipe.rollout.max_completion_length, 1),
        "train.steps": (recipe.train.steps, 1),
        "train.micro_batch": (recipe.train.micro_batch, 1),
        "train.save_every": (recipe.train.save_every, 1),
        "train.keep_checkpoints": (recipe.train.keep_checkpoints, 1),
        "train.log_rollouts": (recipe.train.log_rollouts, 0),
        "train.warmup_steps": (recipe.train.warmup_steps, 0),
        "train.weight_decay": (recipe.train.weight_decay, 0),
        "train.seed": (recipe.train.seed, 0),
        "objective.future_weight": (recipe.objective.future_weight, 0),
        "rollout.top_k": (recipe.rollout.top_k, 0),
        "eval.top_k": (recipe.eval.top_k, 0),
        "eval.samples": (recipe.eval.samples, 1),
        "eval.teacher_samples": (recipe.eval.teacher_samples, 0),
        "eval.batch_size": (recipe.eval.batch_size, 1),
    }
    above_zero = {
        "rollout.temperature": recipe.rollout.temperature,
        "eval.temperature": recipe.eval.temperature,
        "train.learning_rate": recipe.train.learning_rate,
        "train.max_grad_norm": recipe.train.max_grad_norm,
    }
    unit = {
        "teacher.ema_rate": recipe.teacher.ema_rate,
        "objective.discount": recipe.objective.discount,
        "rollout.top_p": recipe.rollout.top_p,
        "eval.top_p": recipe.eval.top_p,
    }
    return [
        *(
            f"{k} is {v}, and must be at least {low}."
            for k, (v, low) in at_least.items()
            if not v >= low
        ),
        *(f"{k} is {v}, and must be above 0." for k, v in above_zero.items() if not v > 0),
        *(f"{k} is {v}, and must lie in (0, 1]." for k, v in unit.items() if not 0 < v <= 1),
    ]


def _combinations(recipe: Recipe) -> list[str]:
    """Values that are impossible together."""
    faults = []
    per_step = recipe.rollout.prompts_per_step * recipe.rollout.num_generations
    if per_step % recipe.train.micro_batch:
        faults.append(
            f"train.micro_batch is {recipe.train.micro_batch}, which doesn't divide the {per_step} "
            "rollouts of a step (rollout.prompts_per_step x rollout.num_generations)."
        )
    if recipe.rollout.prompts_per_step > recipe.task.train_size:
        faults.append(
            f"rollout.prompts_per_step is {recipe.rollout.prompts_per_step}, more than the "
            f"{recipe.task.train_size} problems there are (task.train_size)."
        )
    if recipe.teacher.kind == "lora_off" and recipe.model.lora.rank == 0:
        faults.append(
            "teacher.kind is lora_off, but no LoRA is trained (model.lora.rank is 0). "
            "Use teacher.kind: frozen, or set model.lora.rank."
        )
    truncated = recipe.rollout.top_p < 1 or recipe.rollout.top_k > 0
    if truncated and recipe.objective.future != "none":
        faults.append(
            "rollout.top_p or rollout.top_k cuts the sampler's distribution, so its samples are "
            "not the policy's and future credit would be biased. Set rollout.top_p: 1 and "
            "rollout.top_k: 0, or objective.future: none."
        )
    if not recipe.feedback.order:
        faults.append("feedback.order is empty, so no rollout would have a teacher. Name a source.")
    return faults


def check_keys(given: dict[str, Any], known: dict[str, Any], where: str) -> None:
    """Raises RecipeError at the first key of `given` that `known` lacks, with the nearest one.

    Also where a value hasn't its default's shape: group, list, true or false, or one value.
    """
    for key, value in given.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise RecipeError(f"Unknown field {path!r}.{perhaps(str(key), known)}")
        if wanted := _wrong_shape(path, value, known[key]):
            raise RecipeError(f"Field {path!r} is {value!r}, and must be {wanted}.")
        if isinstance(known[key], dict) and path != "task.options":
            check_keys(value, known[key], path)


def _wrong_shape(path: str, value: Any, default: Any) -> str | None:
    """What `value` had to be, if it can't stand in `default`'s place."""
    if path == "task.options":
        fine = isinstance(value, dict) and all(isinstance(k, str) for k in value)
        fine = fine and all(isinstance(v, int | float | str) for v in value.values())
        return None if fine else "names with one number, text, true or false each"
    if isinstance(default, dict):
        fields = ", ".join(sorted(default))
        return None if isinstance(value, dict) else f"a group of fields: {fields}"
    if isinstance(default, list):
        fine = isinstance(value, str | list) and all(isinstance(v, str) for v in value)
        return None if fine else "a list of names"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if value is None or isinstance(value, bool | dict | list):
        return "one value, in quotes if it is text"
    return None
