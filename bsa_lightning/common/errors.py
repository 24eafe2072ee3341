"""The two exceptions that the command line prints as one line: a user's mistake, and a run that was interrupted."""


class UserError(ValueError):
    """A user's mistake, in one sentence: the setting, its value, what would be valid, and what to do."""


class StoppedError(Exception):
    """A run was asked to stop, and has saved a checkpoint from which it can be resumed."""
