"""Every check on a recipe that is read: `check_recipe`, and the values that don't go together.

`check_processes`: whether so many processes can train it.

Each message states the fact, the reason and the fix. Nothing here imports torch or reads a file.
Left out: unknown fields and wrong shapes (`distil.recipe.shapechecks`, as a file is read).
"""

from collections.abc import Sequence
from dataclasses import replace

from distil.config import Recipe
from distil.errors import RecipeError
from distil.figures.figurenames import eval_faults
from distil.recipe.algorithms import faults, resolved
from distil.recipe.critiquechecks import critique_faults
from distil.recipe.presets import preset
from distil.recipe.rangechecks import or_else, range_faults
from distil.recipe.samplerchecks import sampler_faults
from distil.recipe.servedchecks import Names, served_faults
from distil.recipe.taskchecks import task_faults

DEMONSTRATING = {"sibling", "expert", "correction"}
"""Sources that show a solution; the others only report on the attempt."""

LEAST_FEEDBACK_TOKENS = 16
"""A budget that holds the marks of two cuts, whatever the tokenizer."""


def check_recipe(recipe: Recipe) -> Recipe:
    """The recipe with its objective resolved (what null stood for is filled in).

    Raises RecipeError with every impossible value in it, one a line.
    """
    recipe = replace(recipe, objective=resolved(recipe.objective))
    if recipe.preset:
        preset(recipe.preset)  # refuses an unknown name
    found = [
        *range_faults(recipe),
        *task_faults(recipe.task),
        *_folder(recipe),
        *_batches(recipe),
        *_teacher(recipe),
        *_feedback(recipe),
        *_tools(recipe),
        *sampler_faults(recipe.rollout),
        *_objective(recipe),
        *eval_faults(recipe.eval, recipe.task.validation_size),
    ]
    if found:
        raise RecipeError("This recipe can't run:\n" + "\n".join(f"  - {f}" for f in found))
    return recipe


def check_processes(recipe: Recipe, count: int) -> None:
    """Raises RecipeError where so many processes can't share a step's rollouts equally."""
    train, rollout = recipe.train, recipe.rollout
    per_step = rollout.prompts_per_step * rollout.num_generations
    per_pass = train.micro_batch * count
    if per_step % (per_pass * train.updates_per_batch):
        raise RecipeError(
            f"The {per_step} rollouts of a step (rollout.prompts_per_step x num_generations) don't "
            f"divide into {train.updates_per_batch} updates (train.updates_per_batch) of passes "
            f"over {per_pass}: train.micro_batch x {count} processes. Lower micro_batch, or take "
            "another number of processes (GPUs)."
        )


def _folder(recipe: Recipe) -> list[str]:
    """Whether the run has a folder of its own: "" would be the one that the command runs in."""
    if recipe.train.output_dir.strip():
        return []
    return [f"train.output_dir is {recipe.train.output_dir!r}. Name the folder that the run makes."]


def _batches(recipe: Recipe) -> list[str]:
    """Whether a step's rollouts can be dealt out, and there are problems enough for it."""
    found: list[str] = []
    per_step = recipe.rollout.prompts_per_step * recipe.rollout.num_generations
    parts = recipe.train.micro_batch * recipe.train.updates_per_batch
    if parts > 0 and per_step % parts:
        found.append(
            f"train.micro_batch is {recipe.train.micro_batch} and train.updates_per_batch "
            f"{recipe.train.updates_per_batch}: together they don't divide the {per_step} rollouts "
            "of a step (rollout.prompts_per_step x rollout.num_generations). Change one of them."
        )
    if recipe.rollout.prompts_per_step > recipe.task.train_size:
        found.append(
            f"rollout.prompts_per_step is {recipe.rollout.prompts_per_step}, more than the "
            f"{recipe.task.train_size} problems there are (task.train_size). Lower it, or raise "
            "that."
        )
    return found


def _teacher(recipe: Recipe) -> list[str]:
    """What this teacher can't do with these weights and this number of rollouts."""
    found: list[str] = []
    if recipe.teacher.kind == "lora_off" and recipe.model.lora.rank == 0:
        found.append(
            "teacher.kind is lora_off, but no LoRA is trained (model.lora.rank is 0). "
            "Use teacher.kind: frozen, or set model.lora.rank."
        )
    has_weights = recipe.teacher.kind in ("ema", "frozen")
    if recipe.teacher.shadow_device == "cpu" and not has_weights:
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
            f"({recipe.rollout.num_generations}): one rollout's teacher prompt gives one sample. "
            "Lower it, or raise that."
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
    ]


def _feedback(recipe: Recipe) -> list[str]:
    """Sources that nobody reads or fills, their order and budget, and the critic."""
    found: list[str] = []
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
    if or_else(rollout.max_tool_calling_iterations, 1) < 1:
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
