"""Who scores the student's own tokens, and the pass that does it for a whole batch.

    teachers        the same network with which weights: live, frozen, adapter off, EMA
    adapters        which weights a LoRA makes of a model's
    served/         another model, behind a server
    teacherpass     every number that is asked of it, at once
    passplan        which rows are run together, and which first tokens are read once for many
    prefixes        running such a plan: the shared first tokens' keys and values, then the rows

Left out: what the teacher is shown (`distil.feedback`, `distil.prompts`).
"""
