"""The run's folder: everything that a run leaves on the disk, and how it's taken up again.

    folder        what lies in it; begun, reopened, its logs cut back to a checkpoint's step
    earlier       an earlier training's logs in the same folder, moved aside
    checkpoints   which ones count: written to their end, and still what was written
    best          the state that did best on validation problems
    badsteps      steps whose loss or gradient was no finite number: skipped, kept to look at
    alarms        figures beyond their bounds, and the checkpoint from before the trouble

Left out: what is in a checkpoint (transformers', accelerate's, `distil.teacher.teachers`'), and the
rollouts' records (`distil.trainer.rolloutlog`).
"""
