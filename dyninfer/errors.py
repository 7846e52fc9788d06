"""Every error that dyninfer raises on purpose, by cause.

A message says in one line what was received, what was expected and what to do.
"""

from dyninfer.plain_text import one_line


class DyninferError(Exception):
    """Base class of all errors raised on purpose by dyninfer.

    Messages quote files, arguments and libraries: ``str(error)`` is one line without anything
    that a terminal or a log would obey; ``args`` has the message as it was made.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class BundleError(DyninferError):
    """A bundle is missing, incomplete, altered, or of a schema this version cannot read."""


class CheckpointError(DyninferError):
    """A checkpoint cannot be read safely, or does not fit its architecture."""


class ConfigError(DyninferError):
    """A topology description (YAML) or another configuration file is not usable."""


class ExportError(DyninferError):
    """An export was started but could not be completed; nothing was left behind."""


class VerificationError(DyninferError):
    """An exported stage disagrees with its source beyond the tolerance."""


class InputError(DyninferError):
    """An image, tensor or argument has the wrong shape, dtype, size or content."""


class PolicyError(DyninferError):
    """A routing policy does not fit the bundle it was set on."""


class RouterError(DyninferError):
    """A router cannot be fitted: there is nothing to learn, or what was learned is of no use."""


class BackendUnavailable(DyninferError):  # noqa: N818  # the public name is fixed
    """The backend or device that was asked for is not installed or not present."""


class EngineBuildError(DyninferError):
    """A backend refused to open or build an engine from a stage."""


class EngineRunError(DyninferError):
    """A backend failed while it ran a stage, for example for want of memory."""


class BrokenOutputError(EngineRunError):
    """An engine gave values that none gives that works, such as NaN or a confidence of 7."""


class DeadlineError(EngineRunError):
    """A call was not answered before its deadline."""


class MissingExtra(DyninferError):  # noqa: N818  # named like BackendUnavailable
    """An optional dependency is not installed; the message names the extra to install."""
