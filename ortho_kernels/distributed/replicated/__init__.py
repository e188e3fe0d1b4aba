"""Weights that every rank holds (DDP): the penalties, with the work shared out."""
