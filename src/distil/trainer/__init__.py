"""DistILTrainer on TRL's seam: from graded rollouts to a loss. Nothing that TRL does is done here.

In the order in which a step runs through them:

    trainer         the seam: TRL's three methods, and who is called in each
    training_args   DistILConfig, its arguments
    rowchecks       whether a dataset's rows can be trained on, before anything is loaded
    rounding        whether 16-bit weights can take a learning rate's steps
    equipment       what it works with, made from those: teacher, critic, probe, logs
    loggers         whether the loggers that were asked for are installed
    toolset         the student's tools, when rollouts use some
    ownpolicy       nothing is sampled from but softmax(logits / temperature)
    sharedprompts   a group's prompt read once while sampling
    draws           how its tokens are drawn on a CPU
    collect         rollouts and rewards -> feedback, contexts, teacher prompts
    rewards         no reward but a finite number: others are ungraded
    selfcritic      the student as a critic of its own answers, one kind of feedback
    probe           the teacher's own answers, sampled and graded: is it better than the student?
    batches         what a batch of rollouts gets besides: supports, teacher's scores, baselines
    aggregation     earlier batches, kept and trained on again
    demonstrations  what a batch gets for the objective `sft`, and its loss
    scoring         the student's pass
    flatrows        a micro-batch as one row of real tokens, each prompt once
    paddingfree     the student's pass over such a row, where the model allows it
    assembly        scores -> one number: weights, ratios, credit, advantage
    onepass         the same number and its gradient in one pass over the output layer
    rolloutlog      rollouts.jsonl
    resuming        a run taken up, with its teacher, logs and earlier batches
    callbacks       what happens between steps: the teacher's average, checkpoints, metrics, Ctrl-C

Left out: the maths (`distil.objectives`), the words (`distil.prompts`).
"""
