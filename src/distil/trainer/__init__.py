"""DistILTrainer on TRL's seam: from graded rollouts to a loss. Nothing that TRL does is done here.

    trainer         the seam: TRL's three methods; training_args its arguments
    equipment       what it works with, made from those: teacher, critic, probe, logs
    collect         rollouts and rewards -> feedback, contexts, teacher prompts
    batches         what a generation batch gets besides: supports, teacher's scores, baselines
    scoring         the student's pass
    assembly        scores -> one number: weights, ratios, credit, advantage
    onepass         the same number and its gradient in one pass over the output layer
    aggregation     earlier batches, kept; demonstrations: `sft`; probe: the teacher's own answers
    toolset         tools of the student; selfcritic: the student as critic
    sharedprompts   a group's prompt read once while sampling
    callbacks       between steps; rolloutlog: rollouts.jsonl; loggers: are they installed

Left out: the maths (`distil.objectives`), the words (`distil.prompts`).
"""
