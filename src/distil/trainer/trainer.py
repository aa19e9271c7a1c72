"""DistILTrainer: TRL's GRPOTrainer with DistIL's loss and its rivals', on TRL's seam of 3 methods.

    _calculate_rewards                 TRL's rewards; then each rollout's Feedback and context
    _generate_and_score_completions    TRL's rollouts; then one teacher pass over the same tokens
    _compute_loss                      one student pass, the objective's loss over the active tokens

Everything else (samplers, groups, optimisers, sharding, logging, resuming, adapters, GRPO's own
loss) is TRL's. What is added to a batch is `BatchBuilder`'s (distil.trainer.batches); how its parts
become a loss is distil.trainer.assembly's. Left out: images.

Truncated rollouts: the limit on length is part of the problem, so a rollout that hits it simply
ends there; TRL's `mask_truncated_completions` masks such rollouts instead.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from torch import Tensor
from trl import GRPOTrainer

from distil.distributed import zero3
from distil.distributed.metrics import MetricSums
from distil.distributed.processes import from_main
from distil.distributed.shards import by_fsdp2, in_dtype
from distil.feedback.tools import tool_traces
from distil.profiling.parts import count, part, turn
from distil.prompts.encoder import Encoder
from distil.prompts.markers import find_markers
from distil.prompts.messages import escape_special_tokens
from distil.runs.checkpoints import disk_faults_told
from distil.runs.earlier import set_logs_aside
from distil.trainer.aggregation import ReplayBuffer, add_earlier, earlier_rows
from distil.trainer.assembly import cost_function, observe, replay_loss
from distil.trainer.batches import BatchBuilder
from distil.trainer.collect import (
    Collected,
    FeedbackFunc,
    collect_feedback,
    encode_demonstrations,
    encode_teacher_prompts,
    refresh_corrections,
)
from distil.trainer.demonstrations import add_demonstrations, demonstration_loss
from distil.trainer.equipment import (
    bad_steps_of,
    builder_of,
    callbacks_of,
    check_elsewhere,
    critic_of,
    probe_of,
    reward_watch_of,
    rollout_log_of,
    set_up_engines,
    teacher_of,
)
from distil.trainer.ownpolicy import own_policy
from distil.trainer.paddingfree import prepare
from distil.trainer.probe import sampled_from
from distil.trainer.resuming import NoStepLeft, end_without_a_step, take_up
from distil.trainer.rewards import weighted
from distil.trainer.rolloutlog import grading_told, rollout_records
from distil.trainer.sharedprompts import check_can_share, with_shared_prompts
from distil.trainer.toolset import guarded
from distil.trainer.training_args import DistILConfig, as_objective, checked_arguments
from distil.types import Prompt
from distil.vocab.hidden import base_model, check_output_layer


class DistILTrainer(GRPOTrainer):
    """Trains a causal LM with DistIL, or one of its rivals (`args.objective`). Arguments,
    dataset columns and reward functions as in TRL.

    feedback_funcs: one function or a list of them, each called like a reward function with the
        rewards added, `f(prompts, completions, completion_ids, rewards, **columns)`, and returning
        one `Feedback`, one string (the report's text) or None a completion.
    A dataset column `instruction` (the format demand), where there is one, closes the teacher's
    prompt, so that the teacher answers in the form that is graded.
    tools, environment_factory: TRL's, for multi-turn rollouts; what they print is escaped, enters
        neither cost nor credit, and is feedback where `feedback_order` names "tools".
    """

    _tag_names = ["trl", "distil"]  # noqa: RUF012  (TRL reads it from the class)

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: DistILConfig | None = None,
        train_dataset: Any = None,
        *,
        feedback_funcs: FeedbackFunc | list[FeedbackFunc] | None = None,
        **kwargs: Any,
    ) -> None:
        args = checked_arguments(args, train_dataset, kwargs)
        # Everything _calculate_rewards hands on to _generate_and_score_completions.
        self._collected: Collected | None = None
        self._sampling_ended = 0.0
        self._generation_seconds = 0.0
        self._student_tokens: Tensor | int = 0
        self._sums: dict[str, MetricSums] = {"train": MetricSums(), "eval": MetricSums()}
        check_elsewhere(args, kwargs)
        kwargs = guarded(kwargs, self._escape_text)
        with with_shared_prompts(args, kwargs) as options:
            super().__init__(model, reward_funcs, args, train_dataset, **options)
        if args.share_prompts:
            check_can_share(self.model)
        self._own_dtype = self.model.dtype
        self.reward_watch = reward_watch_of(self)
        self.objective = as_objective(args.objective)
        wanted = args.padding_free and self.objective.name != "grpo"  # whose pass is TRL's
        prepare(base_model(self.model), wanted)
        set_up_engines(self)
        given = [] if feedback_funcs is None else feedback_funcs
        self.feedback_funcs = list(given) if isinstance(given, list) else [given]
        if "tools" in args.feedback_order:
            self.feedback_funcs.append(tool_traces)
        self.encoder = Encoder(
            self.processing_class, self.chat_template, self.chat_template_kwargs, self.tools
        )
        self.markers = find_markers(
            self.processing_class, self.chat_template, **self.chat_template_kwargs
        )
        cost = cost_function(self.objective)
        if self.objective.name != "grpo" and not zero3.asked_for(args):  # that one begins later
            check_output_layer(self.model)
        self.teacher = teacher_of(self, cost)
        self.replay = ReplayBuffer(self.objective.replay_batches)
        self.builder = builder_of(self, cost)
        self.probe = probe_of(self, cost)
        self.critic = critic_of(self, self._escape_text)
        self.rollout_log = rollout_log_of(self)
        self.bad_steps = bad_steps_of(self, self._sums["train"])
        for callback in callbacks_of(self, self.bad_steps):
            self.add_callback(callback)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """As TRL's; True resumes from the last sound checkpoint (`distil.runs.checkpoints`)."""
        if resume_from_checkpoint:
            latest = resume_from_checkpoint is True
            named = self.args.output_dir if latest else str(resume_from_checkpoint)
            resume_from_checkpoint = take_up(self, named)
        else:
            from_main(lambda: set_logs_aside(self.args.output_dir))
        with disk_faults_told(self.args.output_dir):
            try:
                return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
            except NoStepLeft:
                return end_without_a_step(self)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As TRL's; FSDP2's shards are gathered, but for a checkpoint, which has them already.

        A collective call. What is trained in float32 shards is written in the model's own dtype.
        """
        if _internal_call or not by_fsdp2(self.model):
            super().save_model(output_dir, _internal_call)
            return
        weights = self.accelerator.get_state_dict(self.model)
        if not isinstance(self.model, PeftModel):
            weights = in_dtype(weights, self._own_dtype)
        if self.args.should_save:  # older releases of transformers don't ask
            self._save(output_dir or self.args.output_dir, state_dict=weights)

    # ------------------------------------------------------------------ rollouts and feedback

    @part("feedback")
    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        self._sampling_ended = time.perf_counter()
        own, first = len(prompts), self.accelerator.process_index * len(prompts)
        told = grading_told(
            self.args.output_dir, self.state.global_step + 1, prompts, completions,
            self.accelerator.process_index,
        )  # fmt: skip
        # Others' functions compute in their own dtype, though sampling's autocast is around them.
        with torch.autocast(self.accelerator.device.type, enabled=False):
            with part("grading"), told:
                per_func = super()._calculate_rewards(
                    inputs, prompts, completions, completion_ids_list
                )
            per_func = self.reward_watch.finite(per_func)
            refresh_corrections(self.feedback_funcs, from_main, self._sums[self._mode])
            self._collected = collect_feedback(
                inputs, prompts, completions, completion_ids_list,
                rewards=weighted(per_func, self.reward_weights)[first : first + own].tolist(),
                unfinite=self.reward_watch.unfinite,
                feedback_funcs=self.feedback_funcs,
                order=self.args.feedback_order,
                combine=self.args.feedback_combine,
                sibling_choice=self.args.sibling_choice,
                seed=f"{self.args.seed}/{self.state.global_step}",
                group_size=self._group_size,
                gather=gather_object,
                first=first,
                environments=self.environments,
                critic=self.critic if self._mode == "train" else None,
            )  # fmt: skip
        return per_func

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        started = time.perf_counter()
        # vLLM has weights of its own; transformers samples from the model, shards or not. TRL
        # gathers DeepSpeed's itself.
        elsewhere = self.use_vllm or self.is_deepspeed_enabled
        policy = own_policy(self.model) if elsewhere else sampled_from(self.accelerator, self.model)
        with part("sampling"), policy:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        collected, sums = self._collected, self._sums[self._mode]
        assert collected is not None
        sampled = output["completion_mask"]
        if "tool_mask" in output:  # 0 where a tool or an environment speaks
            sampled = sampled * output["tool_mask"]
        sums.rate("speed/sampling_tokens", sampled.sum(), self._sampling_ended - started)
        for name in ("sampling", "grading", "feedback"):
            count(sampled, name)

        output["row"] = torch.arange(len(inputs), device=output["completion_ids"].device)
        rows = len(inputs)
        texts: list[Prompt | None] = [None] * rows
        cut, active = [False] * rows, [False] * rows
        if self.builder is not None:
            texts, cut, active = self._add_teacher(self.builder, output, sampled, collected, sums)
        elif self.objective.name == "sft":
            ids = encode_demonstrations(collected, self.processing_class, self.markers)
            add_demonstrations(output, ids, self.accelerator)
        collected.add_metrics(sums, cut=cut, active=active if self.builder else None)
        if self.args.log_rollouts >= 0 and self._mode == "train":
            self._open_rollout_log(collected, texts)
        self._generation_seconds = time.perf_counter() - started
        return output

    @part("logging")
    def _open_rollout_log(self, collected: Collected, texts: Sequence[Prompt | None]) -> None:
        rows = len(texts)
        records = rollout_records(
            collected, texts, step=self.state.global_step + 1,
            first=self.accelerator.process_index * rows,
        )  # fmt: skip
        everyones = gather_object(records)
        if self.rollout_log is not None:
            detailed = self.args.log_rollouts if self.builder else 0
            self.rollout_log.open(
                everyones, own=rows, detailed=detailed,
                micro_batches=self.args.steps_per_generation,
            )  # fmt: skip

    @part("teacher")
    def _add_teacher(
        self, builder: BatchBuilder, output: dict[str, Tensor], sampled: Tensor,
        collected: Collected, sums: MetricSums,
    ) -> tuple[list[Prompt | None], list[bool], list[bool]]:  # fmt: skip
        """The teacher's part of the batch; (prompts as words, whether cut, whether active)."""
        self.encoder.check_same_template(output, collected.prompts[0])
        shown = encode_teacher_prompts(
            collected,
            self.encoder.encode,
            self.markers,
            self.args.max_teacher_prompt_length,
            self.args.demonstration_header,
            self.args.max_feedback_tokens,
        )
        teacher_ids = shown.ids
        sums.ratio("feedback/refused", sum(shown.refused), len(teacher_ids))
        row_weight = None
        if self.probe is not None and self._mode == "train":
            with part("teacher's samples"):
                row_weight = self.probe.run(
                    self.model, teacher_ids, [r.reward for r in collected.rollouts],
                    self._group_size, lambda rows, ids: self._grade(rows, ids, collected), sums,
                )  # fmt: skip
        before = time.perf_counter()
        work = builder.add_teacher(
            self.model, output, teacher_ids, sampled,
            [r.succeeded for r in collected.rollouts], self._group_size, stale=self._stale,
            whole=self._mode == "eval" or self.args.steps_per_generation == 1,
            row_weight=row_weight,
        )  # fmt: skip
        work.add_metrics(sums, time.perf_counter() - before)
        count(work.tokens, "teacher")
        if self._mode == "train" and self.objective.replay_batches:
            seed = f"{self.args.seed}/{self.state.global_step}/{self.accelerator.process_index}"
            add_earlier(output, self.replay, len(teacher_ids), seed, self.accelerator)
        failed = work.failed or ()
        active = [ids is not None and row not in failed for row, ids in enumerate(teacher_ids)]
        return shown.words, shown.cut, active

    @part("grading")
    def _grade(
        self, rows: Sequence[int], completion_ids: list[list[int]], collected: Collected
    ) -> list[float]:
        """TRL's weighted rewards of other completions of some rows' prompts; NaN: not graded."""
        texts = self.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
        prompts = [collected.prompts[i] for i in rows]
        said: list[Any] = list(texts)
        if prompts and not isinstance(prompts[0], str):
            said = [[{"role": "assistant", "content": text}] for text in texts]
        inputs = [collected.inputs[i] for i in rows]
        per_func = super()._calculate_rewards(inputs, prompts, said, completion_ids)
        rewards = weighted(self.reward_watch.finite(per_func), self.reward_weights)
        first = self.accelerator.process_index * len(rows)
        return rewards[first : first + len(rows)].tolist()

    # ------------------------------------------------------------------ loss

    @part("loss")
    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._student_tokens = inputs["prompt_mask"].sum() + inputs["completion_mask"].sum()
        if self.builder is not None:
            loss = self._distillation_loss(self.builder, model, inputs)
        elif self.objective.name == "sft":
            loss, per_token = demonstration_loss(
                model, base_model(self.accelerator.unwrap_model(self.model)), inputs,
                temperature=self.temperature, share=self._share,
            )  # fmt: skip
            self._sums[self._mode].add("sft/cross_entropy", per_token, inputs["demonstration_mask"])
        else:
            with part("student forward"):  # TRL's: the output layer too
                loss = super()._compute_loss(model, inputs)
                for name in ("student forward", "backward"):
                    count(self._student_tokens, name)
        if self._mode == "train" and self.rollout_log is not None:
            with part("logging"):
                self.rollout_log.after_micro_batch()
        if self._mode == "train":
            self.bad_steps.saw(loss, inputs)
        return loss

    def _distillation_loss(
        self, builder: BatchBuilder, model: Any, inputs: dict[str, Tensor]
    ) -> Tensor:
        log = self.rollout_log if self._mode == "train" else None
        look = log.detailed(inputs) if log is not None else ()
        student, assembled = builder.loss(model, inputs, self._share, look)
        observe(self._sums[self._mode], self.objective, inputs, student, assembled)
        if log is not None:
            with part("logging"):
                log.fill(inputs, student, assembled.credit, self.processing_class)
        earlier = earlier_rows(inputs)
        if earlier is None:
            return assembled.loss
        student = builder.score_student(model, earlier)
        again = replay_loss(self.objective, student, earlier, share=self._share)
        self._sums[self._mode].add("distil/replay_cost", student.cost, earlier["active"])
        return assembled.loss + again

    @property
    def _share(self) -> float:
        """What a generation batch's counts, over all processes, are to one update of one of them.

        The loss is added up over one accumulation window, and averaged over processes.
        """
        share = 1 / float(self.accelerator.num_processes)
        if self._mode == "train":
            share *= self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return share

    @property
    def _stale(self) -> bool:
        """Whether a later update sees rollouts of the policy before an earlier one."""
        batches = self.args.steps_per_generation * self.num_iterations
        return bool(self.args.gradient_accumulation_steps % batches)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """TRL's, timed: what is left after generation is the student's forward and backward."""
        self._generation_seconds = 0.0
        started = time.perf_counter()
        with part("backward"):  # what is left of it when the parts inside are subtracted
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            turn("optimiser")
        seconds = time.perf_counter() - started - self._generation_seconds
        self._sums["train"].rate("speed/student_tokens", self._student_tokens, seconds)
        return loss

    @part("logging")
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log, with DistIL's metrics averaged over processes and the logging interval."""
        prefix = "" if self._mode == "train" else "eval_"
        for name, value in self._sums[self._mode].reduce(self.accelerator).items():
            logs[prefix + name] = value
        super().log(logs, start_time)

    # ------------------------------------------------------------------ small things

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    @property
    def _group_size(self) -> int:
        return int(self.num_generations if self._mode == "train" else self.num_generations_eval)

    def _escape_text(self, text: str) -> str:
        return escape_special_tokens(text, self.markers.texts)
