"""What runs inside the jail. Standard library only: these files are loaded without the rest.

wire.py      plain values as JSON, tuples, sets and odd numbers tagged
lockdown.py  resource limits, Landlock, seccomp, another user
run.py       what a locked child does, by mode
program.py   a program as a script, its streams, its end
functions.py its functions, one call and one answer at a time
assertions.py  tests of them, in a jail of their own
talk.py      messages on the two private pipes
zygote.py    the process that forks a locked child for each run, watches and reaps it
"""
