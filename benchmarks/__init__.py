"""Benchmarks: `make bench` runs them all; `pytest benchmarks --benchmark-only -k "resnet50 and so"` some."""
