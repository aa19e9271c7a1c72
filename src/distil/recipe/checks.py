"""Every check on a recipe, in one place: unknown fields, wrong shapes, impossible values.

Each message states the fact, the reason and the fix. Nothing here imports torch or reads a file.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from distil.config import TABLE_ENDING, AlarmConfig, Recipe, SandboxConfig, TaskConfig
from distil.errors import RecipeError, perhaps
from distil.figures.figurenames import eval_faults
from distil.recipe.algorithms import faults, resolved
from distil.recipe.critiquechecks import critique_faults
from distil.recipe.presets import preset
from distil.recipe.samplerchecks import sampler_faults
from distil.recipe.servedchecks import Names, served_faults

# Sources that show a solution; the others only report on the attempt.
DEMONSTRATING = {"sibling", "expert", "correction"}

# Bounds that have a default, and that null takes away.
OFF_BY_NULL = {f"alarms.{f.name}" for f in fields(AlarmConfig) if "None" in str(f.type)}

# A budget that holds the marks of two cuts, whatever the tokenizer.
LEAST_FEEDBACK_TOKENS = 16


def check_recipe(recipe: Recipe) -> Recipe:
    """The recipe with its objective resolved (what null stood for is filled in).

    Raises RecipeError with every impossible value in it, one a line.
    """
    recipe = replace(recipe, objective=resolved(recipe.objective))
    if recipe.preset:
        preset(recipe.preset)  # refuses an unknown name
    found = [
        *_ranges(recipe),
        *_task(recipe.task),
        *_sandbox(recipe.task),
        *_combinations(recipe),
        *_objective(recipe),
        *eval_faults(recipe.eval, recipe.task.validation_size),
    ]
    if found:
        raise RecipeError("This recipe can't run:\n" + "\n".join(f"  - {f}" for f in found))
    return recipe


def _ranges(recipe: Recipe) -> list[str]:
    """Values that are impossible by themselves."""
    at_least: dict[str, tuple[float, int]] = {
        "task.train_size": (recipe.task.train_size, 1),
        "task.eval_size": (recipe.task.eval_size, 0),
        "task.validation_size": (recipe.task.validation_size, 0),
        "model.lora.rank": (recipe.model.lora.rank, 0),
        "teacher.max_prompt_length": (recipe.teacher.max_prompt_length, 16),
        "teacher.samples": (recipe.teacher.samples, 0),
        "objective.top_k": (recipe.objective.top_k, 1),
        "objective.replay_batches": (recipe.objective.replay_batches, 0),
        "objective.ratio_clip": (recipe.objective.ratio_clip, 1),
        "objective.advantage_weight": (recipe.objective.advantage_weight or 0.0, 0),
        "rollout.prompts_per_step": (recipe.rollout.prompts_per_step, 1),
        "rollout.num_generations": (recipe.rollout.num_generations, 1),
        "rollout.max_completion_length": (recipe.rollout.max_completion_length, 1),
        "train.steps": (recipe.train.steps, 1),
        "train.updates_per_batch": (recipe.train.updates_per_batch, 1),
        "train.num_iterations": (recipe.train.num_iterations, 1),
        "train.micro_batch": (recipe.train.micro_batch, 1),
        "train.save_every": (recipe.train.save_every, 1),
        "train.keep_checkpoints": (recipe.train.keep_checkpoints, 1),
        "train.log_rollouts": (recipe.train.log_rollouts, 0),
        "train.rollouts_mb": (recipe.train.rollouts_mb, 0),
        "train.warmup_steps": (recipe.train.warmup_steps, 0),
        "train.weight_decay": (recipe.train.weight_decay, 0),
        "train.seed": (recipe.train.seed, 0),
        "objective.future_weight": (recipe.objective.future_weight, 0),
        "rollout.top_k": (recipe.rollout.top_k, 0),
        "eval.top_k": (recipe.eval.top_k, 0),
        "eval.every": (recipe.eval.every, 0),
        "eval.samples": (recipe.eval.samples, 1),
        "eval.teacher_samples": (recipe.eval.teacher_samples, 0),
        "eval.batch_size": (recipe.eval.batch_size, 1),
        "alarms.patience": (recipe.alarms.patience, 1),
        "alarms.max_length_growth": (_or(recipe.alarms.max_length_growth, 1), 1),
        "alarms.max_length_loss": (_or(recipe.alarms.max_length_loss, 1), 1),
        "alarms.max_teacher_success_loss": (_or(recipe.alarms.max_teacher_success_loss, 1), 1),
    }
    above_zero = {
        "rollout.temperature": recipe.rollout.temperature,
        "eval.temperature": recipe.eval.temperature,
        "train.learning_rate": recipe.train.learning_rate,
        "train.max_grad_norm": recipe.train.max_grad_norm,
        "objective.max_teacher_entropy": _or(recipe.objective.max_teacher_entropy, 1.0),
        "objective.policy_space_clip": _or(recipe.objective.policy_space_clip, 1.0),
    }
    unit = {
        "teacher.ema_rate": recipe.teacher.ema_rate,
        "objective.discount": recipe.objective.discount,
        "rollout.top_p": recipe.rollout.top_p,
        "eval.top_p": recipe.eval.top_p,
    }
    margin = recipe.objective.first_error_margin
    return [
        *(["objective.first_error_margin is no number."] if margin != margin else []),
        *(
            f"{k} is {v}, and must be at least {low}."
            for k, (v, low) in at_least.items()
            if not v >= low
        ),
        *(f"{k} is {v}, and must be above 0." for k, v in above_zero.items() if not v > 0),
        *(f"{k} is {v}, and must lie in (0, 1]." for k, v in unit.items() if not 0 < v <= 1),
    ]


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _task(task: TaskConfig) -> list[str]:
    """How a table is judged, and what else would say so."""
    if task.eval_file and not (
        task.name.endswith(TABLE_ENDING) and task.eval_file.endswith(TABLE_ENDING)
    ):
        return [
            f"task.eval_file is {task.eval_file!r} and task.name {task.name!r}: a file to judge on "
            f"goes with a file to train on, both *{TABLE_ENDING}. Leave it out."
        ]
    if not task.name.endswith(TABLE_ENDING):
        if task.check is None:
            return []
        return [
            f"task.check is {task.check}, but {task.name!r} is no file of problems "
            f"(*{TABLE_ENDING}) and brings its own judge. Leave task.check out, or null."
        ]
    if task.check is None:
        return [
            f"task.check isn't set, and it says how the answers of {task.name!r} are judged. "
            "Set it to math, choice, exact, tolerant or programs."
        ]
    return []


def _sandbox(task: TaskConfig) -> list[str]:
    """Settings of the sandbox that nothing reads, or that allow nothing."""
    wants, found = task.sandbox, []
    if task.check != "programs" and wants != SandboxConfig():
        found.append(
            "task.sandbox is set, but no program is run. Leave it out, or set task.check: programs."
        )
    if wants.cpu_s <= 0 or wants.mem_mb < 16 or wants.workers < 0:
        found.append(
            f"task.sandbox allows {wants.cpu_s} s, {wants.mem_mb} MiB and {wants.workers} workers: "
            "cpu_s must be above 0, mem_mb at least 16, workers at least 0."
        )
    if wants.level == "unsafe" and not wants.allow_unsafe:
        found.append(
            "task.sandbox.level is unsafe: programs could read your files and use your network. If "
            "you mean that, set task.sandbox.allow_unsafe: true."
        )
    return found


def _combinations(recipe: Recipe) -> list[str]:
    """Values that are impossible together."""
    found: list[str] = []
    per_step = recipe.rollout.prompts_per_step * recipe.rollout.num_generations
    parts = recipe.train.micro_batch * recipe.train.updates_per_batch
    if parts > 0 and per_step % parts:
        found.append(
            f"train.micro_batch is {recipe.train.micro_batch} and train.updates_per_batch "
            f"{recipe.train.updates_per_batch}: together they don't divide the {per_step} rollouts "
            "of a step (rollout.prompts_per_step x rollout.num_generations)."
        )
    if recipe.rollout.prompts_per_step > recipe.task.train_size:
        found.append(
            f"rollout.prompts_per_step is {recipe.rollout.prompts_per_step}, more than the "
            f"{recipe.task.train_size} problems there are (task.train_size)."
        )
    if recipe.teacher.kind == "lora_off" and recipe.model.lora.rank == 0:
        found.append(
            "teacher.kind is lora_off, but no LoRA is trained (model.lora.rank is 0). "
            "Use teacher.kind: frozen, or set model.lora.rank."
        )
    if recipe.teacher.shadow_device == "cpu" and recipe.teacher.kind in (
        "live",
        "lora_off",
        "served",
    ):
        found.append(
            f"teacher.shadow_device is cpu, but a {recipe.teacher.kind} teacher has no weights of "
            "its own to put there. Leave it out, or use teacher.kind: ema or frozen."
        )
    if recipe.teacher.gate and recipe.teacher.samples == 0:
        found.append(
            "teacher.gate compares the teacher's own samples with the student's, and "
            "teacher.samples is 0. Set teacher.samples to 1 or more."
        )
    if recipe.teacher.samples > recipe.rollout.num_generations:
        found.append(
            f"teacher.samples is {recipe.teacher.samples}, more than rollout.num_generations "
            f"({recipe.rollout.num_generations}): one rollout's teacher prompt gives one sample."
        )
    if recipe.feedback.corrections and "correction" not in recipe.feedback.order:
        found.append(
            f"feedback.corrections is {recipe.feedback.corrections!r}, but feedback.order doesn't "
            "name correction, so that nobody would read them. Add it where it ranks."
        )
    if "critique" in recipe.feedback.order and recipe.feedback.critique.by == "none":
        found.append(
            "feedback.order names critique, and feedback.critique.by is none: nobody writes any. "
            "Set it to policy or judge."
        )
    return [
        *found,
        *served_faults(
            recipe.teacher.kind,
            recipe.teacher.served,
            recipe.objective,
            temperature=recipe.rollout.temperature,
            probe_samples=recipe.teacher.samples,
            names=Names(),
        ),
        *feedback_faults(
            recipe.feedback.order,
            recipe.feedback.max_tokens,
            names=("feedback.order", "feedback.max_tokens"),
        ),
        *critique_faults(
            recipe.feedback.critique,
            recipe.feedback.order,
            recipe.objective.name,
            names=("feedback.critique", "feedback.order"),
        ),
        *_tools(recipe),
        *sampler_faults(recipe.rollout),
    ]


def _tools(recipe: Recipe) -> list[str]:
    """What tools, or their absence, don't go with."""
    rollout, order = recipe.rollout, recipe.feedback.order
    found: list[str] = []
    if not rollout.tools:
        if "tools" in order:
            found.append("feedback.order names tools, and rollout.tools is empty. Name a tool.")
        if rollout.max_tool_calling_iterations is not None:
            found.append("rollout.max_tool_calling_iterations is set, and rollout.tools is empty.")
        return found
    for name in rollout.tools:
        if ".py:" not in name:
            found.append(f"rollout.tools has {name!r}, and a tool is path/to/file.py:function.")
    if _or(rollout.max_tool_calling_iterations, 1) < 1:
        found.append("rollout.max_tool_calling_iterations must be at least 1, or null: no limit.")
    if recipe.task.eval_size:
        found.append(
            f"task.eval_size is {recipe.task.eval_size}, and the held-out problems are answered in "
            "one turn without tools: the table would judge another policy than the one that is "
            "trained. Set it to 0, and read the reward in metrics.jsonl."
        )
    if recipe.teacher.samples:
        found.append("teacher.samples are drawn without tools, and rollout.tools has some. Set 0.")
    if recipe.objective.name == "sft":
        found.append(
            "sft imitates a demonstration as one message; with rollout.tools it isn't one."
        )
    return found


def feedback_faults(order: Sequence[str], max_tokens: int, *, names: tuple[str, str]) -> list[str]:
    """What is wrong with an order of sources, and with a budget of tokens for what they say.

    `names` are what the reader calls the two: a recipe's fields, or arguments.
    """
    found: list[str] = []
    name, budget = names
    if not order:
        found.append(f"{name} is empty, so no rollout would have a teacher. Name a source.")
    for source in sorted({s for s in order if order.count(s) > 1}):
        found.append(f"{name} names {source} more than once. Name it once, where it ranks.")
    if max_tokens < 0 or 0 < max_tokens < LEAST_FEEDBACK_TOKENS:
        found.append(
            f"{budget} is {max_tokens}, and must be 0 (no limit of its own) or at least "
            f"{LEAST_FEEDBACK_TOKENS}: less has no room even for the mark of a cut."
        )
    return found


def _objective(recipe: Recipe) -> list[str]:
    """What the objective can't do with this sampler and this feedback."""
    order, generations = recipe.feedback.order, recipe.rollout.num_generations
    cut = recipe.rollout.top_p < 1 or recipe.rollout.top_k > 0
    found = faults(recipe.objective, sampler_is_cut=cut, num_generations=generations)
    if recipe.objective.name == "sft" and not DEMONSTRATING & set(order):
        found.append(
            "sft needs demonstrations, and feedback.order has only reports. Add sibling or expert."
        )
    if generations == 1 and order == ("sibling",):
        found.append(
            "feedback.order is sibling alone, and with rollout.num_generations 1 there are none. "
            "Raise it, or add another source."
        )
    return found


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
    if value is None and (default is None or path in OFF_BY_NULL):
        return None
    if isinstance(default, dict):
        fields = ", ".join(sorted(default))
        return None if isinstance(value, dict) else f"a group of fields: {fields}"
    if path == "eval.k":
        numbers = value if isinstance(value, list) else [value]
        return None if all(type(v) is int for v in numbers) else "a list of whole numbers"
    if isinstance(default, list):
        fine = isinstance(value, str | list) and all(isinstance(v, str) for v in value)
        return None if fine else "a list of names"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if value is None or isinstance(value, bool | dict | list):
        return "one value, in quotes if it is text"
    return None
