"""Several processes as one run.

processes       who speaks and writes, who does what, how all end
shards          weights that FSDP2 shards
metrics         sums and counts, averaged over all of them
"""
