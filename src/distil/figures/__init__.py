"""An evaluation's figures, and the tables in which people read them. No torch.

estimates       avg@n, pass@k, maj@k with intervals, paired differences
figurenames     which there are, and what is wrong with those asked for
tables          rows of a table; layout: tables, times and model text for people
"""
