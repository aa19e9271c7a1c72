"""Every word of ours that reaches a model, and how it reaches it.

    messages        the student's message, the teacher's, and the cut of feedback that fits
    markers         texts that would speak as somebody else
    encoder         prompts as token ids

Left out: who gets which feedback (`distil.feedback`).
"""
