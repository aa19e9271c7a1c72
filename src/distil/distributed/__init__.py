"""Several processes as one run.

gpus            their names, and one for each of several runs
processes       who speaks and writes, who does what, how all end
shards          sharded weights: FSDP2's, or handed on to zero3
zero3           weights that DeepSpeed's ZeRO-3 shards
metrics         sums and counts, averaged over all of them
"""
