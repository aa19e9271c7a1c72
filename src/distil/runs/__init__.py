"""A run's folder: what is in it, and what is written while a run goes on.

folder          its files by name, written whole; where and with what a run was made
checkpoints     digests, and the last checkpoint that is complete
best            the state that did best on validation problems
badsteps        steps whose loss or gradient was no finite number
alarms          figures beyond their bounds
"""
