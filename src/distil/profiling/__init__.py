"""What a step needs of time and memory.

memory          estimated, before anything is loaded (`distil train --dry-run`)
parts           measured: the parts of a step, named where they happen
account         which parts there are, and what several steps spent on each; no torch
profiler        their table (`distil train --profile`)
"""
