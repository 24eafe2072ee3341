"""The one exception that a user's mistake raises; the command line prints it as one line."""


class UserError(ValueError):
    """One sentence: the setting, its value, what would be valid, what to do."""
