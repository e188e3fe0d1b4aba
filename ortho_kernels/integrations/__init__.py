"""One small file a library: the penalty in other people's trainers."""
