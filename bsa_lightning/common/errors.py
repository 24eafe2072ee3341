"""The two exceptions that the command line prints as one line: a user's mistake, and a run that was interrupted."""


class UserError(ValueError):
    """A user's mistake, in one sentence: the setting, its value, what would be valid, and what to do."""


class StoppedError(Exception):
    """A run was asked to stop, and has saved a checkpoint from which it can be resumed.

    Args:
        message: the sentence that says when, and how to go on.
        exit_code: what a shell says of a process that such a signal ended: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, message: str, exit_code: int = 143) -> None:
        super().__init__(message)
        self.exit_code = exit_code
