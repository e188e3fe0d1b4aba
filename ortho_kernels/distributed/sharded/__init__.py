"""Weights of which each rank holds a part (FSDP2, tensor parallelism): the penalties, with no weight gathered."""
