"""``dyninfer sign``: a signature that tells who made a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dyninfer.builds.search import list_builds, open_build
from dyninfer.builds.signature import sign_build
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.signature import SIGNATURE_FILE, sign_bundle
from dyninfer.cli.common import stdout, warn
from dyninfer.cli.options import BundleArgument
from dyninfer.plain_text import counted


def sign(
    bundle: BundleArgument,
    key: Annotated[
        Path,
        typer.Option("--key", help="Private key of an elliptic curve (PEM).", show_default=False),
    ],
) -> None:
    """Sign what the export made (bundle.json, stages) and every build, after checking all hashes.

    Each gets a **model.sig**, in OpenSSF's model-signing format. A later calibration leaves it
    valid; a new build needs a signature of its own, so sign again after it.

    Example: **dyninfer sign dy-yolov7.dyn --key private.pem**

    Example: **dyninfer predict dy-yolov7.dyn photos/ --trusted-key public.pem**
    """
    opened = Bundle.open(bundle, check_calibration=False)
    builds, broken = list_builds(opened)
    checked = [open_build(path, build) for path, build in builds.items()]
    sign_bundle(opened, key)
    for found in checked:
        sign_build(found, key)
    for error in broken:
        warn(error)
    also = f" and of {counted(len(checked), 'build')}" if checked else ""
    stdout.print(f"wrote {SIGNATURE_FILE} of {bundle}{also}")
