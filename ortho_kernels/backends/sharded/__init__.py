"""Weights of which each process holds a part: the penalties over all of them, by another backend for what is here."""
