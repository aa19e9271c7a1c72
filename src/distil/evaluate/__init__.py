"""Sampling and judging a model on problems, and the file in which that is kept.

judging         sample and grade, for a training run or `distil eval`
samplers/       transformers or vLLM in process, or an OpenAI-compatible endpoint
evalfile        settings, problems' digests, every attempt; regrade judges them anew
"""
