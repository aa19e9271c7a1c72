"""DistILTrainer: TRL's GRPOTrainer with DistIL's loss, on TRL's seam of three methods.

    _calculate_rewards                 TRL's rewards; then each rollout's Feedback and context
    _generate_and_score_completions    TRL's rollouts; then one teacher pass over the same tokens
    _compute_loss                      one student pass, DistIL's loss over the active tokens

Everything else (samplers, groups, optimisers, sharding, logging, resuming, adapters) is TRL's.
Left out: updates on stale rollouts (refused by DistILConfig), images.

Truncated rollouts: the limit on length is part of the problem, so a rollout that hits it simply
ends there; TRL's `mask_truncated_completions` masks such rollouts instead.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl import GRPOTrainer

from distil import objectives
from distil.callbacks import CheckpointCallback, MetricsFile
from distil.collect import Collected, FeedbackFunc, collect_feedback, encode_teacher_prompts
from distil.errors import FeedbackError, RunError, TrainingError
from distil.hidden import base_model, check_output_layer
from distil.metrics import MetricSums
from distil.rolloutlog import RolloutLog, rollout_records, save_ungraded
from distil.runs import checkpoint_step, complete_checkpoint, cut_logs
from distil.scoring import StudentScores, score_student, score_teacher
from distil.teacher import make_teacher
from distil.training_args import DistILConfig
from distil.types import Prompt

COSTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_cross_entropy": objectives.forward_cross_entropy,
    "forward_kl": objectives.forward_kl,
    "reverse_kl": objectives.reverse_kl,
    "jensen_shannon": objectives.jensen_shannon,
}


class DistILTrainer(GRPOTrainer):
    """Trains a causal LM with DistIL. Arguments, dataset columns and reward functions as in TRL.

    feedback_funcs: one function or a list of them, each called like a reward function with the
        rewards added, `f(prompts, completions, completion_ids, rewards, **columns)`, and returning
        one `Feedback`, one string (the report's text) or None a completion.
    A dataset column `instruction` (the format demand), where there is one, closes the teacher's
    prompt, so that the teacher answers in the form that is graded.
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
        if args is not None and not isinstance(args, DistILConfig):
            raise TypeError(
                f"args is a {type(args).__name__}, and must be a DistILConfig: it takes all of "
                "GRPOConfig's arguments and DistIL's beside them."
            )
        if (
            train_dataset is not None
            and hasattr(train_dataset, "__len__")
            and not len(train_dataset)
        ):
            raise RunError("The training dataset is empty: there is nothing to train on.")
        args = args if args is not None else DistILConfig("distil-output")
        # Everything _calculate_rewards hands on to _generate_and_score_completions.
        self._collected: Collected | None = None
        self._sampling_ended = 0.0
        self._generation_seconds = 0.0
        self._student_tokens: Tensor | int = 0
        self._micro_batches_left = 0
        self._sums: dict[str, MetricSums] = {"train": MetricSums(), "eval": MetricSums()}
        super().__init__(model, reward_funcs, args, train_dataset, **kwargs)
        if feedback_funcs is None:
            feedback_funcs = []
        self.feedback_funcs = (
            feedback_funcs if isinstance(feedback_funcs, list) else [feedback_funcs]
        )
        self.cost = COSTS[args.divergence]
        check_output_layer(self.model)
        self.teacher = make_teacher(args.teacher, self.model, args.teacher_ema_rate)
        self.add_callback(CheckpointCallback(self.teacher))
        self.rollout_log: RolloutLog | None = None
        if args.log_rollouts >= 0 and self.accelerator.is_main_process:
            self.rollout_log = RolloutLog(args.output_dir)
            self.add_callback(MetricsFile(args.output_dir))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """As TRL's; True resumes from the last checkpoint that was written to its end."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(complete_checkpoint(self.args.output_dir))
        if resume_from_checkpoint:
            checkpoint = complete_checkpoint(resume_from_checkpoint)
            self.teacher.load(checkpoint)
            if self.accelerator.is_main_process:
                cut_logs(self.args.output_dir, checkpoint_step(checkpoint))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    # ------------------------------------------------------------------ rollouts and feedback

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        self._sampling_ended = time.perf_counter()
        try:
            per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        except Exception as error:
            file = save_ungraded(self.args.output_dir, prompts, completions)
            raise FeedbackError(
                f"Grading the rollouts of step {self.state.global_step + 1} failed with "
                f"{type(error).__name__}: {error}. Mend the reward function (it must return one "
                f"number or None a completion; the rollouts are in {file}, to try it on) and "
                "resume from the last checkpoint."
            ) from error
        count, first = len(prompts), self.accelerator.process_index * len(prompts)
        weighted = (per_func * self.reward_weights.to(per_func.device)).nansum(1)
        weighted[per_func.isnan().all(1)] = torch.nan  # ungraded: no success, and no 0 either
        self._collected = collect_feedback(
            inputs,
            prompts,
            completions,
            completion_ids_list,
            rewards=weighted[first : first + count].tolist(),
            feedback_funcs=self.feedback_funcs,
            order=self.args.feedback_order,
            sibling_choice=self.args.sibling_choice,
            seed=f"{self.args.seed}/{self.state.global_step}",
            group_size=self._group_size,
            gather=gather_object,
            first=first,
        )
        return per_func

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        started = time.perf_counter()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        collected, sums = self._collected, self._sums[self._mode]
        assert collected is not None
        sums.rate(
            "speed/sampling_tokens", output["completion_mask"].sum(), self._sampling_ended - started
        )

        self._check_same_template(output, collected.prompts[0])
        teacher_ids, texts, cut = encode_teacher_prompts(
            collected,
            self._encode,
            self._special_tokens,
            self.args.max_teacher_prompt_length,
            self.args.demonstration_header,
        )
        mask = self._sampled_mask(output)
        has_context = torch.tensor([ids is not None for ids in teacher_ids], device=mask.device)
        active = mask * has_context[:, None]
        before = time.perf_counter()
        with torch.no_grad(), self.accelerator.autocast(), self.teacher.scoring(self.model):
            scores = score_teacher(
                self.model, base_model(self.model), teacher_ids,
                output["completion_ids"], active, k=self.args.support_top_k, **self._scoring,
            )  # fmt: skip
        sums.rate("speed/teacher_tokens", scores.tokens, time.perf_counter() - before)
        output |= {
            "active": active,
            "support_ids": scores.ids,
            "teacher_logps": scores.logps,
            "teacher_entropy": scores.entropy,
            "row": torch.arange(len(inputs), device=mask.device),
            "active_count": self.accelerator.gather(active.sum()).sum(),
        }
        if self.args.baseline and self.args.future != "none":
            output["baseline"] = self._group_baseline(output)
        collected.add_metrics(sums, cut=cut, active=has_context.tolist())
        if self.rollout_log is not None and self._mode == "train":
            records = rollout_records(collected, texts, step=self.state.global_step + 1)
            self.rollout_log.open(records, detailed=self.args.log_rollouts)
        self._micro_batches_left = self.args.steps_per_generation
        self._generation_seconds = time.perf_counter() - started
        return output

    @torch.no_grad()
    def _group_baseline(self, output: dict[str, Tensor]) -> Tensor:
        """Leave-one-out mean of the credit over whole groups, which may span processes."""
        group_size, training = self._group_size, self.model.training
        self.model.eval()  # no activation checkpointing where nothing is kept for a backward pass
        with self.accelerator.autocast():  # as the loss will run
            student = self._score_student(self.model, output)
        self.model.train(training)
        credit = self._credit(student.cost, output["active"])
        length = self.accelerator.gather(
            torch.tensor([credit.shape[1]], device=credit.device)
        ).max()
        padding = (0, int(length) - credit.shape[1])
        everyone = self.accelerator.gather(torch.nn.functional.pad(credit, padding))
        active = self.accelerator.gather(torch.nn.functional.pad(output["active"], padding))
        baseline = objectives.leave_one_out(everyone, active, group_size)
        first = self.accelerator.process_index * len(credit)
        return baseline[first : first + len(credit), : credit.shape[1]]

    # ------------------------------------------------------------------ loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        student = self._score_student(model, inputs)
        self._student_tokens = inputs["prompt_mask"].sum() + inputs["completion_mask"].sum()
        active = inputs["active"]
        token_loss = objectives.distil_token_loss(
            student.cost,
            student.sampled_logps,
            active,
            future=self.args.future,
            discount=self.args.discount,
            future_weight=self.args.future_weight,
            baseline=inputs.get("baseline"),
        )
        if "importance_sampling_ratio" in inputs:  # TRL's correction for a sampler in vLLM
            token_loss = token_loss * inputs["importance_sampling_ratio"]
        count = inputs["active_count"] / self.accelerator.num_processes
        if self._mode == "train":
            # The count spans a generation batch; the loss is added up over one accumulation window.
            count = (
                count * self.current_gradient_accumulation_steps / self.args.steps_per_generation
            )
        loss = objectives.masked_mean(token_loss, active, count)
        self._observe(inputs, student)
        if not torch.isfinite(loss):
            self._close_rollouts()
            raise TrainingError(
                f"The loss of step {self.state.global_step + 1} is {loss.item()}: the weights or a "
                "log-probability are no longer finite. Lower the learning rate, or resume from the "
                f"last checkpoint in {self.args.output_dir}; nothing of this step was applied."
            )
        return loss

    def _score_student(self, model: Any, batch: dict[str, Tensor]) -> StudentScores:
        """The student's log-probabilities at the support and the sampled tokens, and the cost."""
        return score_student(
            model, base_model(self.accelerator.unwrap_model(self.model)), batch,
            cost=self.cost, tail=self.args.support_tail, temperature=self.temperature,
        )  # fmt: skip

    def _credit(self, cost: Tensor, active: Tensor) -> Tensor:
        """Future credit as the recipe wants it, before the baseline; zeros for local credit."""
        if self.args.future == "none":
            return torch.zeros_like(cost)
        return objectives.future_credit(
            cost, active, reduction=self.args.future, discount=self.args.discount
        )

    @torch.no_grad()
    def _observe(self, inputs: dict[str, Any], student: StudentScores) -> None:
        """Adds this micro-batch to the metrics and to the rollouts' records."""
        active = inputs["active"]
        credit = self._credit(student.cost, active) - inputs.get("baseline", 0.0) * active
        sums = self._sums[self._mode]
        sums.add("distil/cost", student.cost, active)
        sums.add("distil/future_credit", credit, active)
        sums.maximum("distil/future_credit_max", credit, active)
        future = (self.args.future_weight * credit * student.sampled_logps).abs() * active
        sums.ratio(
            "distil/future_share", future.sum(), future.sum() + (student.cost.abs() * active).sum()
        )
        sums.add("teacher/entropy", inputs["teacher_entropy"], active)
        sums.add("student/entropy", student.entropy, active)
        sums.add("distil/agreement", student.agreement, active)
        if self.rollout_log is not None and self._mode == "train":
            self.rollout_log.fill(inputs, student, credit, self.processing_class)
            self._micro_batches_left -= 1
            if self._micro_batches_left == 0:
                self._close_rollouts()

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """TRL's, timed: what is left after generation is the student's forward and backward."""
        self._generation_seconds = 0.0
        started = time.perf_counter()
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        seconds = time.perf_counter() - started - self._generation_seconds
        self._sums["train"].rate("speed/student_tokens", self._student_tokens, seconds)
        return loss

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

    @property
    def _scoring(self) -> dict[str, Any]:
        return {
            "batch_size": self.args.per_device_train_batch_size,
            "temperature": self.temperature,
            "pad_token_id": self.processing_class.pad_token_id,
        }

    def _sampled_mask(self, output: dict[str, Tensor]) -> Tensor:
        """1 at tokens that the student sampled: no pads, no tool output."""
        mask = output["completion_mask"]
        return mask * output["tool_mask"] if "tool_mask" in output else mask

    @property
    def _special_tokens(self) -> list[str]:
        return [t.content for t in self.processing_class.added_tokens_decoder.values() if t.special]

    def _encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt with its generation header, as TRL encodes the student's."""
        if isinstance(prompt, str):
            return list(self.processing_class(text=prompt)["input_ids"])
        encoded = self.processing_class.apply_chat_template(
            prompt, tools=self.tools or None, chat_template=self.chat_template,
            add_generation_prompt=True, tokenize=True, return_dict=True,
            **self.chat_template_kwargs,
        )  # fmt: skip
        return list(encoded["input_ids"])

    def _check_same_template(self, output: dict[str, Tensor], prompt: Prompt) -> None:
        """Both sides must render one template: else the first token's cost is an artefact."""
        student = output["prompt_ids"][0][output["prompt_mask"][0] > 0].tolist()
        ours = self._encode(prompt)
        if student != ours:
            raise TrainingError(
                f"The student's prompt has {len(student)} tokens, and the same prompt encoded for "
                f"the teacher {len(ours)}, or others: the two sides don't use one chat template."
            )

    def _close_rollouts(self) -> None:
        if self.rollout_log is not None:
            self.rollout_log.close_step()
