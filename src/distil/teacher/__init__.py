"""Who scores the student's own tokens, and the pass that does it for a whole batch.

    teachers        the same network with which weights: live, frozen, adapter off, EMA
    served/         another model, behind a server
    teacherpass     every number that is asked of it, at once
    passplan        which rows go together; prefixes what is read once for many

Left out: what the teacher is shown (`distil.feedback`, `distil.prompts`).
"""
