"""``dyninfer models``: what ships with the package."""

from __future__ import annotations

from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.shipped import SHIPPED, bytes_of
from dyninfer.cli.common import print_json, stdout
from dyninfer.cli.options import JsonOption


def models(json_output: JsonOption = False) -> None:
    """List the models that ship with dyninfer; their names stand for bundles in all commands.

    What is calibrated and built for them is kept in the user's cache folder.

    Example: **dyninfer predict everyday photos/**
    """
    manifests = {name: Bundle.read(model.folder).manifest for name, model in SHIPPED.items()}
    sizes = {name: bytes_of([model]) for name, model in SHIPPED.items()}
    if json_output:
        print_json(
            [
                {
                    "name": name,
                    "route": manifest.route.kind,
                    "size_bytes": sizes[name],
                    "classes": manifest.class_names,
                    "licence": manifest.source.licence,
                    "purpose": SHIPPED[name].purpose,
                }
                for name, manifest in manifests.items()
            ]
        )
        return
    of_all = manifests.values()
    print_table(
        make_table(
            "Models that ship with dyninfer",
            column("name", SHIPPED, words=True),
            column("route", (manifest.route.kind for manifest in of_all), words=True),
            column("size", (f"{size / 1e6:.1f} MB" for size in sizes.values())),
            column("classes", (str(len(manifest.class_names)) for manifest in of_all)),
            column("licence", (str(manifest.source.licence) for manifest in of_all), words=True),
            column("what for", (model.purpose for model in SHIPPED.values()), words=True),
        ),
        stdout,
    )
    total = bytes_of(SHIPPED.values())
    stdout.print(f"{total / 1e6:.1f} MB in all: everyday and everyday-sizes share their weights")
    stdout.print(styled("try: ", ("dyninfer predict everyday PHOTOS", "bold")))
