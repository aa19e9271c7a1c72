"""What each command does, once its arguments are read.

    flags, evalflags       the flags of every command; of `distil eval`
    train                  a whole run: setup (model, data, trainer), judging (its evaluations)
    dry_run                what a run would do and need (`distil train --dry-run`)
    eval                   an evaluation, stored or made by `sample`; two of them compared
    run_code               a program against tests, in the sandbox
    correct                a person's corrections of failed attempts, said in a dialogue
    data, theory, doctor   published sets as tables; the method's claims; what this machine can do

`distil report` and `distil compare` have rooms of their own.
"""
