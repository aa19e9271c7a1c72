"""What a step needs of time and memory.

memory          estimated, before anything is loaded (`distil train --dry-run`)
parts           measured: the parts of a step, named where they happen
profiler        their table (`distil train --profile`)
"""
