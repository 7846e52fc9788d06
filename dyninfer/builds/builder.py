"""What every builder offers: it says which build is needed, and makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dyninfer.builds.files import Converted
from dyninfer.builds.spec import BuildSpec, OpenBuild
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision

StageReport = Callable[[str, float, str], None]
"""(stage; share of it that is done, in [0, 1]; the phase under way)."""


@dataclass(frozen=True)
class Making:
    """How a build is made, beside what it is.

    Attributes:
        converted: stages in another precision than the bundle's; None to take them from any build
            that has them.
        replace: build even if there is this very build.
        report: told of the progress, from another thread.
        on_wait: called once if another process is building in this bundle.
    """

    converted: Converted | None = None
    replace: bool = False
    report: StageReport = lambda _stage, _share, _phase: None
    on_wait: Callable[[], None] = lambda: None


AS_USUAL = Making()


class Builder(Protocol):
    """Makes builds for one backend, and for one device where that matters."""

    def wanted(
        self, manifest: Manifest, precision: Mapping[str, Precision], max_batch: int
    ) -> BuildSpec | None:
        """The build that the backend needs for a bundle, or None if its own files will do.

        Args:
            manifest: the bundle's.
            precision: that of every stage.
            max_batch: the most images that it will be given at once.
        """

    def converted(self, bundle: Bundle, precision: Mapping[str, Precision]) -> Converted | None:
        """Stages in a precision, as far as they need not be converted anew; None where they do."""

    def make(self, bundle: Bundle, wanted: BuildSpec, making: Making = AS_USUAL) -> OpenBuild:
        """Make what :meth:`wanted` asked for.

        Raises:
            EngineBuildError: it cannot be built here; the message names the command that can.
        """
