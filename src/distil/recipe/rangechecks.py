"""Values of a recipe that are impossible by themselves: below their least, not above 0, over 1.

Left out: values that don't go together (`distil.recipe.checks`), and the groups of fields that have
a file of their own (critiques, a served teacher, vLLM, the sandbox).
"""

import math

from distil.config import Recipe


def range_faults(recipe: Recipe) -> list[str]:
    """Every such value as a sentence that says what it must be; [] if there is none. NaN is one."""
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
        "alarms.max_length_growth": (or_else(recipe.alarms.max_length_growth, 1), 1),
        "alarms.max_length_loss": (or_else(recipe.alarms.max_length_loss, 1), 1),
        "alarms.max_teacher_success_loss": (or_else(recipe.alarms.max_teacher_success_loss, 1), 1),
    }
    above_zero = {
        "rollout.temperature": recipe.rollout.temperature,
        "eval.temperature": recipe.eval.temperature,
        "train.learning_rate": recipe.train.learning_rate,
        "model.lora.alpha": recipe.model.lora.alpha,
        "train.max_grad_norm": recipe.train.max_grad_norm,
        "objective.max_teacher_entropy": or_else(recipe.objective.max_teacher_entropy, 1.0),
        "objective.policy_space_clip": or_else(recipe.objective.policy_space_clip, 1.0),
    }
    unit = {
        "teacher.ema_rate": recipe.teacher.ema_rate,
        "objective.discount": recipe.objective.discount,
        "rollout.top_p": recipe.rollout.top_p,
        "eval.top_p": recipe.eval.top_p,
    }
    dropout = recipe.model.lora.dropout
    margin = or_else(recipe.objective.first_error_margin, 0.0)
    return [
        *(
            [f"model.lora.dropout is {dropout}, and must lie in [0, 1): 1 drops everything."]
            if not 0 <= dropout < 1
            else []
        ),
        *(
            ["objective.first_error_margin is nan. Make it a number, or null: nothing is an error."]
            if math.isnan(margin)
            else []
        ),
        *(
            f"{k} is {v}, and must be at least {low}."
            for k, (v, low) in at_least.items()
            if not v >= low
        ),
        *(f"{k} is {v}, and must be above 0." for k, v in above_zero.items() if not v > 0),
        *(f"{k} is {v}, and must lie in (0, 1]." for k, v in unit.items() if not 0 < v <= 1),
    ]


def or_else(value: float | None, otherwise: float) -> float:
    """The value; `otherwise` for None."""
    return otherwise if value is None else value
