"""Measurements on a GPU. `benchmarks/gpu_day.py` runs them all; one alone: `python -m benchmarks.gpu.penalties`, say."""
