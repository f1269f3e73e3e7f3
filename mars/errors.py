"""The one exception that means "the user can mend this"."""


class UserError(Exception):
    """A mistake in the input: one sentence that says what is wrong and what to do about it.

    The command line prints the sentence and exits with status 2, without a traceback.
    """
