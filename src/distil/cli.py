"""The command line: reads arguments and recipes, then imports what does the work.

    distil train RECIPE [--group.field value ...] [--resume] [--dry-run] [--profile]
    distil eval MODEL|FILE.json [--recipe RECIPE] [--preset NAME] [--task.field value ...] [...]
    distil report RUN [RUN ...] [--out FILE] [--megabytes N]
    distil compare SUITE [--report-only] [--retry-failed] [--output-dir DIR]
    distil run-code PROGRAM --tests FILE
    distil correct RUN [--problem ID] [--all] [--limit N] [--no-grade] [--by NAME]
    distil data prepare DOMAIN --out DIR [--set NAME] [--source PATH_OR_HUB_ID] [--skip-bad]
    distil data list
    distil theory [--out DIR]
    distil doctor

A recipe is a YAML file (or a run's folder). Its values and the flags go through one parser, so a
typo or a wrong type gets the same message from either, before anything is loaded. Left out: each
command's flags (`distil.commands.flags`, `evalflags`), and what it does.
"""

import os
import select
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import tyro

from distil.commands.evalflags import eval_flags, value_of, with_options, without_options
from distil.commands.flags import (
    GPU_GIB,
    CompareFlags,
    CorrectFlags,
    DataFlags,
    ReportFlags,
    RunCodeFlags,
    TheoryFlags,
    TrainFlags,
)
from distil.config import Recipe
from distil.errors import DistILError, RecipeError, perhaps
from distil.recipe.checks import check_processes, check_recipe
from distil.recipe.recipefile import load_recipe, parse

USAGE = """usage: distil COMMAND ...

  train RECIPE    train a model; RECIPE is a YAML file, or a run's folder (see --resume)
  eval MODEL      judge a model on a task's held-out problems; compare two evaluations
  report RUN ...  one page of a run, or of several: curves, feedback, every token's credit
  compare SUITE   train rival objectives over seeds; one table and one figure
  run-code FILE   run a program against tests, in the sandbox
  correct RUN     correct a run's failed attempts; the run learns from it
  data prepare    turn a published set into tables of problems (data list: which)
  theory          every claim of the method, with its numbers
  doctor          what this machine can do

distil COMMAND --help shows a command's flags.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status (2: wrong arguments, or a deliberate error).

    Ends quietly with 1, as Python itself does, once nobody reads its output: `... | head`.
    """
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise  # another pipe's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes there
        return 1


def _nobody_reads() -> bool:
    """Whether the other end of standard output's pipe is closed."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    try:
        if argv[0] not in COMMANDS:
            raise RecipeError(f"There is no command {argv[0]!r}.{perhaps(argv[0], COMMANDS)}")
        return COMMANDS[argv[0]](argv[1:])
    except DistILError as error:
        print(f"distil: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\ndistil: interrupted. A run goes on with --resume; `distil eval --out` as begun.",
            file=sys.stderr,
        )
        return 130


def _train(argv: list[str]) -> int:
    if argv and argv[0].startswith("-") and not {"-h", "--help"} & set(argv):
        raise RecipeError(f"The recipe comes before the flags: distil train RECIPE {argv[0]} ...")
    named = argv and not argv[0].startswith("-")
    base = load_recipe(argv[0], value_of("--preset", argv)) if named else Recipe()
    default = TrainFlags(tyro.MISSING, recipe=replace(base, task=without_options(base.task)))
    flags = parse(TrainFlags, argv, prog="distil train", default=default)
    task = with_options(flags.recipe.task, base.task)
    recipe = check_recipe(replace(flags.recipe, task=task))
    # A run's folder may have been moved since; --train.output-dir, if given, stands.
    redirected = recipe.train.output_dir != base.train.output_dir
    if flags.resume and Path(flags.recipe_file).is_dir() and not redirected:
        recipe = replace(recipe, train=replace(recipe.train, output_dir=flags.recipe_file))
    _quiet_libraries()
    if flags.dry_run and flags.profile:
        raise RecipeError("--dry-run trains nothing that --profile could time. Leave one out.")
    if flags.gpus < 0 or not flags.gpu_gib > 0:
        raise RecipeError(
            f"--gpus is {flags.gpus} and --gpu-gib {flags.gpu_gib}: --gpus must be 0 (the CPU) or "
            "more, --gpu-gib above 0."
        )
    if flags.dry_run:
        check_processes(recipe, max(flags.gpus, 1))
        from distil.commands.dry_run import dry_run

        return dry_run(recipe, flags.gpus, flags.gpu_gib)
    if (flags.gpus, flags.gpu_gib) != (0, GPU_GIB):
        raise RecipeError(
            "--gpus and --gpu-gib are for --dry-run. A run takes the GPUs that it sees; several "
            "by `accelerate launch`."
        )
    from distil.commands.train import train

    return train(recipe, resume=flags.resume, profile=flags.profile)


def _eval(argv: list[str]) -> int:
    flags = eval_flags(argv)
    _quiet_libraries()
    from distil.commands.eval import evaluate_model

    return evaluate_model(flags)


def _report(argv: list[str]) -> int:
    flags = parse(ReportFlags, argv, prog="distil report", default=ReportFlags(()))
    from distil.report import report

    file = report(flags.runs, flags.out, flags.megabytes)
    print(
        f"{file} ({file.stat().st_size / 1e6:.1f} MB). Open it in a browser; it needs no network."
    )
    return 0


def _compare(argv: list[str]) -> int:
    flags = parse(CompareFlags, argv, prog="distil compare", default=CompareFlags(tyro.MISSING))
    from distil.compare import compare

    return compare(
        flags.suite,
        report_only=flags.report_only,
        retry_failed=flags.retry_failed,
        output_dir=flags.output_dir,
    )


def _run_code(argv: list[str]) -> int:
    default = RunCodeFlags(tyro.MISSING, tyro.MISSING)
    flags = parse(RunCodeFlags, argv, prog="distil run-code", default=default)
    from distil.commands.run_code import run_code

    return run_code(
        flags.program, flags.tests, flags.limits, flags.level, flags.preload, flags.prelude,
        allow_unsafe=flags.allow_unsafe,
    )  # fmt: skip


def _correct(argv: list[str]) -> int:
    flags = parse(CorrectFlags, argv, prog="distil correct", default=CorrectFlags(tyro.MISSING))
    if flags.limit < 0:
        raise RecipeError(f"--limit is {flags.limit}, and must be 0 (no limit) or more.")
    from distil.commands.correct import correct

    return correct(
        flags.run, problem=flags.problem, every=flags.all, limit=flags.limit,
        grade=flags.grade, by=flags.by,
    )  # fmt: skip


def _data(argv: list[str]) -> int:
    if not argv or argv[0] not in ("prepare", "list") or (argv[1:] and argv[0] == "list"):
        if {"-h", "--help"} & set(argv[:1]):
            print("usage: distil data prepare DOMAIN --out DIR ... (see its --help)\n"
                  "       distil data list")  # fmt: skip
            return 0
        raise RecipeError("Say distil data prepare DOMAIN --out DIR, or distil data list.")
    from distil.commands.data import list_data, prepare_data

    if argv[0] == "list":
        return list_data()
    default = DataFlags(tyro.MISSING, tyro.MISSING)
    flags = parse(DataFlags, argv[1:], prog="distil data prepare", default=default)
    return prepare_data(
        flags.domain, flags.out, name=flags.set, source=flags.source, revision=flags.revision,
        skip_bad=flags.skip_bad, verify=flags.verify,
    )  # fmt: skip


def _theory(argv: list[str]) -> int:
    flags = parse(TheoryFlags, argv, prog="distil theory", default=TheoryFlags())
    from distil.commands.theory import theory

    return theory(flags.out)


def _doctor(argv: list[str]) -> int:
    if argv in (["-h"], ["--help"]):
        print("usage: distil doctor\n\nPrints what this machine can do; takes no flags.")
        return 0
    if argv:
        raise RecipeError(f"distil doctor takes no arguments, got {' '.join(argv)}.")
    _quiet_libraries()
    from distil.commands.doctor import doctor

    return doctor()


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "eval": _eval,
    "report": _report,
    "compare": _compare,
    "run-code": _run_code,
    "correct": _correct,
    "data": _data,
    "theory": _theory,
    "doctor": _doctor,
}


def _quiet_libraries() -> None:
    """Progress bars of weight loading and advice of libraries would drown our own lines."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")


if __name__ == "__main__":
    sys.exit(main())
