"""Published sets, turned into the tables that `distil.tasks.table` reads.

sets.py      every set by name          dataset.py    what a set is
sources.py   files of a path, hub id or package        reading.py    files as rows
rows.py      a row, and its faults      splits.py     train and test
science.py, coding.py, livecodebench.py, privatetests.py, mathematics.py, champ.py    the sets
prepare.py   from rows to tables        verify.py     gold answers against their own check
report.py    what was kept, dropped, and why           writing.py    all files or none
"""
