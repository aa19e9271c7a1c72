"""`distil eval`'s flags: short forms, a recipe's and a preset's values under them, their checks.

From the bottom up: the defaults, the recipe's eval part, the preset, flags. Nothing is loaded here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from distil.config import EvalConfig, ModelConfig, Recipe, RolloutConfig, TaskConfig, Thinking
from distil.errors import RecipeError
from distil.evaluate.samplers import SamplerConfig
from distil.recipe.checks import check_recipe
from distil.recipe.critiquechecks import address_faults
from distil.recipe.evalpresets import with_preset
from distil.recipe.recipefile import load_recipe, parse

SHORT = {"--task": "--task.name", "--n": "--eval.samples", "--k": "--eval.k"}

STORED_ENDING = ".json"


@dataclass(frozen=True)
class EvalFlags:
    """Judge a model on a task's held-out problems. Flags override the preset, that the recipe.

    Short forms: --task NAME (--task.name), --n N (--eval.samples), --k 1,4,16 (--eval.k).
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The embedded model's name, a local folder, a .gguf file, or a hub id; or a file that --out
    wrote, or a run's after.json: its figures anew, without sampling."""
    recipe: str | None = None
    """Take task, eval, thinking and completion length from this recipe."""
    preset: str = ""
    """Published settings of evaluations: sciknoweval, livecodebench, math-4b, math-8b."""
    task: TaskConfig = field(default_factory=TaskConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    sampler: Annotated[SamplerConfig, tyro.conf.arg(name="")] = field(default_factory=SamplerConfig)
    max_completion_length: int = 256
    """Tokens; the recipe's rollout.max_completion_length if --recipe is given."""
    thinking: Thinking = "template"
    """Let the model think first, where its chat template has a switch: on, off, as it comes."""
    out: str | None = None
    """Write settings and every attempt to this JSON file; killed, the same command goes on."""
    against: str | None = None
    """A stored evaluation of the same problems, compared with this one problem by problem."""
    regrade: bool = False
    """Judge a stored evaluation's completions anew, by the task's grader of today."""

    @property
    def stored(self) -> bool:
        """Whether MODEL is a file of attempts."""
        return self.model.endswith(STORED_ENDING) and Path(self.model).is_file()


def eval_flags(argv: Sequence[str]) -> EvalFlags:
    """The command's flags, checked. Raises RecipeError."""
    words = _long_forms(argv)
    recipe = Recipe()
    if (file := value_of("--recipe", words)) is not None:
        recipe = load_recipe(file)
    settings, length = recipe.eval, recipe.rollout.max_completion_length
    if name := value_of("--preset", words):
        settings, length = with_preset(name, settings, length)
    base = EvalFlags(
        tyro.MISSING, task=without_options(recipe.task), eval=settings,
        max_completion_length=length, thinking=recipe.model.thinking,
    )  # fmt: skip
    flags: EvalFlags = parse(EvalFlags, words, prog="distil eval", default=base)
    flags = replace(flags, task=with_options(flags.task, recipe.task))
    if flags.stored:
        _check_stored(flags, base)
    elif flags.model.endswith(STORED_ENDING):
        raise RecipeError(f"There is no file {flags.model!r}, and no model is called so.")
    elif flags.regrade:
        raise RecipeError("--regrade judges stored completions anew: name their .json as MODEL.")
    _check_sampler(flags.sampler)
    rollout = RolloutConfig(prompts_per_step=1, max_completion_length=flags.max_completion_length)
    judged = replace(flags.eval, keep_best="")  # that is training's
    if flags.stored:
        judged = replace(judged, k=())  # the file says its n
    model = ModelConfig(thinking=flags.thinking)
    check_recipe(Recipe(model=model, task=flags.task, eval=judged, rollout=rollout))
    return flags


def _check_stored(flags: EvalFlags, base: EvalFlags) -> None:
    """Refuses what a file of attempts can't heed."""
    drawn = replace(flags, model="", recipe=None, task=base.task, out=None, against=None)
    drawn = replace(drawn, regrade=False, eval=replace(flags.eval, k=base.eval.k))
    if drawn != replace(base, model="") or flags.preset:
        raise RecipeError(
            f"{flags.model} holds completions that are drawn already, so that flags of sampling "
            "would change nothing. It takes --k and --against, and --regrade with a task and --out."
        )
    if flags.out is not None and not flags.regrade:
        raise RecipeError("--out would only copy the file: it goes with --regrade here.")


def _check_sampler(wanted: SamplerConfig) -> None:
    if wanted.endpoint and wanted.vllm:
        raise RecipeError("--endpoint and --vllm are two samplers. Leave one out.")
    if not wanted.endpoint and (wanted.endpoint_model or wanted.api_key_env):
        raise RecipeError("--endpoint-model and --api-key-env are an --endpoint's. Name one.")
    if wanted.endpoint and (
        faults := address_faults("--endpoint", wanted.endpoint, "--api-key-env")
    ):
        raise RecipeError(faults[0])
    if wanted.concurrency < 1 or not wanted.timeout > 0 or wanted.tensor_parallel_size < 1:
        raise RecipeError(
            f"--concurrency is {wanted.concurrency}, --timeout {wanted.timeout} and "
            f"--tensor-parallel-size {wanted.tensor_parallel_size}: each must be above 0."
        )


def _long_forms(argv: Sequence[str]) -> list[str]:
    """Short forms as long ones, and k's commas as spaces."""
    words: list[str] = []
    of_k = False
    for word in argv:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            name = SHORT.get(name, name)
            of_k = name == "--eval.k"
            words += [name, *value.split(",")] if of_k and equals else [f"{name}{equals}{value}"]
        else:
            words += [k for k in word.split(",") if k] if of_k else [word]
    return words


def without_options(task: TaskConfig) -> TaskConfig:
    """Without its dataset's options, which tyro would take for the only ones there are."""
    return replace(task, options={})


def with_options(task: TaskConfig, base: TaskConfig) -> TaskConfig:
    """Options given as flags; else the recipe's, as long as they belong to the same dataset."""
    if task.options or task.name != base.name:
        return task
    return replace(task, options=base.options)


def value_of(flag: str, argv: Sequence[str]) -> str | None:
    """The value after a flag, as in `--recipe X` or `--recipe=X`; the last one, as in tyro."""
    found = None
    for place, word in enumerate(argv):
        if word == flag and place + 1 < len(argv):
            found = argv[place + 1]
        if word.startswith(f"{flag}="):
            found = word.split("=", 1)[1]
    return found
