"""What a DistILTrainer works with, made from its arguments: teacher, builder, probe, critic, logs.

Each function takes the trainer once TRL has set it up. Left out: what they do (each has a file of
its own), and when (`distil.trainer.trainer`).
"""

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from distil.config import CritiqueConfig
from distil.distributed import zero3
from distil.distributed.metrics import MetricSums
from distil.distributed.shards import set_up_sharding, sum_in_shards
from distil.feedback.critics import Critic
from distil.feedback.judge import check_judge
from distil.objectives.costs import Cost
from distil.runs.badsteps import BadSteps
from distil.teacher.served.greeting import check_served, check_tokenizer
from distil.teacher.served.teacher import ServedTeacher
from distil.teacher.teachers import Teacher, WeightsTeacher, make_teacher
from distil.trainer.batches import BatchBuilder
from distil.trainer.callbacks import CheckpointCallback, MetricsFile, PartsBegin, PromptOrder
from distil.trainer.loggers import check_loggers
from distil.trainer.ownpolicy import tell_what_is_left_out
from distil.trainer.probe import TeacherProbe, stop_ids
from distil.trainer.resuming import NothingLeft
from distil.trainer.rewards import RewardWatch
from distil.trainer.rolloutlog import RolloutLog
from distil.trainer.rounding import warn_of_lost_steps
from distil.trainer.selfcritic import SelfCritic, make_critic
from distil.trainer.toolset import check_tools
from distil.trainer.training_args import DistILConfig, as_critique, as_objective, as_served
from distil.types import Message
from distil.vocab.hidden import base_model


def check_elsewhere(args: DistILConfig, options: dict[str, Any]) -> None:
    """Before anything is loaded: loggers, tools, and endpoints that must answer. Raises if not."""
    check_loggers(args.report_to)
    check_tools(args, options)
    if args.critique["by"] == "judge":
        check_judge(as_critique(args.critique))
    if args.teacher == "served":
        check_served(
            as_served(args.teacher_served), k=as_objective(args.objective).top_k,
            longest=args.max_teacher_prompt_length + args.max_completion_length,
        )  # fmt: skip


def set_up_engines(trainer: Any) -> None:
    """FSDP2 as this package needs it; warns of steps that may get lost, of settings left out."""
    tell_what_is_left_out(trainer.model)
    if trainer.is_fsdp_enabled:
        set_up_sharding(trainer.accelerator.state.fsdp_plugin)
        sum_in_shards(trainer.accelerator)
    elif not trainer.is_deepspeed_enabled:
        warn_of_lost_steps(trainer.model.parameters(), trainer.args.learning_rate)


def reward_watch_of(trainer: Any) -> RewardWatch:
    """Put between TRL and the trainer's reward functions from now on."""
    watch = RewardWatch(trainer.reward_func_names)
    trainer.reward_funcs = watch.watched(trainer.reward_funcs)
    return watch


def teacher_of(trainer: Any, cost: Cost | None) -> Teacher:
    """Without a cost nobody asks the teacher, so no weights are copied for it."""
    args = trainer.args
    kind = args.teacher if cost else "live"
    if kind == "served":
        check_tokenizer(as_served(args.teacher_served), trainer.processing_class)
        return ServedTeacher(as_served(args.teacher_served))
    return make_teacher(
        kind, trainer.model, args.teacher_ema_rate,
        later=trainer.is_fsdp_enabled or zero3.asked_for(args), device=args.teacher_shadow_device,
    )  # fmt: skip


def builder_of(trainer: Any, cost: Cost | None) -> BatchBuilder | None:
    """None for objectives without a teacher."""
    if cost is None:
        return None
    return BatchBuilder(
        trainer.objective, cost, trainer.teacher, trainer.accelerator, trainer.temperature,
        trainer.args.per_device_train_batch_size, stop_ids(base_model(trainer.model)),
    )  # fmt: skip


def probe_of(trainer: Any, cost: Cost | None) -> TeacherProbe | None:
    """Who samples from the teacher, None if nobody does."""
    args = trainer.args
    if not args.teacher_samples or cost is None:
        return None
    assert isinstance(trainer.teacher, WeightsTeacher)  # a served one's samples are refused
    return TeacherProbe(
        trainer.teacher, trainer.accelerator, args.teacher_samples, args.teacher_gate,
        trainer.max_completion_length, trainer.temperature,
        trainer.processing_class.pad_token_id,
    )  # fmt: skip


def critic_of(trainer: Any, escape: Any) -> Critic | None:
    """Who writes critiques, None if nobody does."""
    settings: CritiqueConfig = as_critique(trainer.args.critique)
    student = SelfCritic(
        trainer.accelerator, trainer.encoder.encode_critique, trainer.encoder.decode,
        settings.max_tokens, settings.temperature, trainer.args.max_teacher_prompt_length,
        trainer.processing_class.pad_token_id,
    )  # fmt: skip

    def write(asked: Sequence[list[Message]]) -> list[str | None]:
        seed = f"{trainer.args.seed}/{trainer.state.global_step}"
        return student.write(trainer.model, asked, seed)

    return make_critic(settings, write, escape)


def rollout_log_of(trainer: Any) -> RolloutLog | None:
    """The main process's; None where none is to be written."""
    args = trainer.args
    if args.log_rollouts < 0 or not trainer.accelerator.is_main_process:
        return None
    return RolloutLog(args.output_dir, args.rollouts_mb)


def bad_steps_of(trainer: Any, sums: MetricSums) -> BadSteps:
    """Told in the metrics as the share of steps that were skipped."""

    def told(skipped: bool) -> None:
        sums.ratio("steps/skipped", float(skipped), 1)

    return BadSteps(trainer.args.output_dir, trainer.accelerator, told)


def callbacks_of(trainer: Any, bad_steps: BadSteps) -> list[TrainerCallback]:
    """In the order in which they act."""
    replay = trainer.replay if trainer.objective.replay_batches else None
    found = [
        bad_steps,
        CheckpointCallback(trainer.teacher, replay, bad_steps, trainer.accelerator),
        PromptOrder(),
        NothingLeft(),
    ]
    if zero3.asked_for(trainer.args):
        found.insert(0, PartsBegin(trainer))
    if trainer.rollout_log is not None:
        found.append(MetricsFile(trainer.args.output_dir))
    return found
