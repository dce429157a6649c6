"""Errors that are meant for the user: each is one line that says what, where and what to do."""


class UserError(Exception):
    """A message for the user; the command line prints it without a traceback and exits with `exit_code`."""

    exit_code = 1


class ConfigError(UserError, ValueError):
    """A setting is wrong; the message names it and says what is valid. It is an error of usage."""

    exit_code = 2


class DeviceError(UserError, ValueError):
    """A device is not there, or cannot be used."""


class DataError(UserError):
    """A data set is missing or cannot be read."""


class RunError(UserError):
    """A run folder is missing, or was written by other settings."""


class CheckpointError(UserError):
    """A checkpoint cannot be read."""


class DivergenceError(UserError):
    """A loss or the logits stopped being finite."""


class CallbackError(UserError):
    """A callback raised something; the message names it and its method, and the training was saved."""


class NetworkError(UserError):
    """A network, objective or estimator of one's own failed in the midst of a training."""


class PeerLostError(UserError):
    """Another process of the same training has ended."""


class SamplesError(UserError):
    """Samples cannot be measured: not binary, of another shape, too few, or not readable."""


class ExportError(UserError):
    """An exported file does not do what the generator does."""


class Interrupted(UserError):  # noqa: N818 - it is no error of the program
    """A signal stopped the training, after it was saved."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
