"""The two exceptions that the command line prints as one line: a user's mistake, and a run that was told to stop."""


class UserError(ValueError):
    """One sentence: the setting, its value, what would be valid, what to do."""


class StoppedError(Exception):
    """A run was told to stop, and has written where to go on."""
