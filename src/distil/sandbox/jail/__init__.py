"""What runs inside the jail. Standard library only: these files are loaded without the rest.

wire.py      plain values as JSON, tuples, sets and odd numbers tagged
lockdown.py  resource limits, Landlock, seccomp, another user
program.py   one program's run in a locked child: as a script, as functions, or as tests of them
zygote.py    the process that forks a locked child for each run, watches and reaps it
"""
