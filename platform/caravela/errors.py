"""The one exception type that a job shows as a single line.

Everything else that is raised is a bug of ours or of the machine, and keeps its traceback.
"""


class UserError(ValueError):
    """A mistake that the person who started the job can mend: a value, what was expected, the way out."""


class MissingInputError(UserError):
    """Something that a run is made of is not there, or not yet; a dry run says so and goes on."""
