"""``dyninfer eval --protocol``: the preparation of pictures that a publication evaluated with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dyninfer.evaluation.outcomes import TracePicture
from dyninfer.exporters.extras import require_export_extra
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import Policy
from dyninfer.runtime.detector import Detector


class Protocol(str, Enum):
    """Whose evaluation."""

    DYNAMICDET = "dynamicdet"


@dataclass(frozen=True)
class ProtocolOptions:
    """Whose evaluation is reproduced, and with which source."""

    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="Evaluate as published, in rectangles, on the source model in PyTorch; times stay "
            "those of the bundle. If absent, the bundle's own engines and preparation."
        ),
    ] = None
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="With --protocol: the file that the bundle was exported from. If absent, a file "
            "of its name here or beside the bundle."
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(help="With --protocol: the YAML that was given to the export, if any."),
    ] = None

    def check(self, policy: Policy | Goal | None) -> None:
        """Refuse what makes no sense together, before anything is opened."""
        if self.protocol is None:
            if self.checkpoint or self.config:
                raise typer.BadParameter("--checkpoint and --config need --protocol")
            return
        require_export_extra("--protocol")
        if isinstance(policy, Goal):
            raise typer.BadParameter(
                "--protocol takes --speed easy, hard or a threshold, since calibrations are of the "
                "bundle's own preparation; --curve shows the threshold of every share"
            )

    def trace_of(self, detector: Detector) -> TracePicture | None:
        """What runs pictures; None for the bundle's engines."""
        if self.protocol is None:
            return None
        from dyninfer.exporters.dynamicdet.protocol import published_evaluation

        sources = [self.checkpoint] if self.checkpoint else []
        return published_evaluation(detector.bundle, sources, self.config).trace
