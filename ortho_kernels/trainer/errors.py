"""The one error that the trainer raises for what its user can put right."""


class TrainerError(SystemExit):
    """Says which thing is wrong and what to do; uncaught, it ends the program with that message and no traceback."""
