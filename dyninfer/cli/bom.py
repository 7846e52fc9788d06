"""A bundle's bill of materials, as CycloneDX 1.6 describes machine-learning models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import dyninfer
from dyninfer.bundle.calibration import Calibration
from dyninfer.bundle.folder import MANIFEST_FILE, Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Manifest, Source, Stage, Task

_TASKS = {
    Task.DETECT: "object-detection",
    Task.CLASSIFY: "image-classification",
    Task.FEATURES: "image-feature-extraction",
}


def bill_of_materials(bundle: Bundle, calibration: Calibration | None) -> dict[str, Any]:
    """A CycloneDX document: the model, its stages, what it was made from, what was measured.

    Hashes are those of the files that were compared with them when the bundle was opened.
    """
    manifest = bundle.manifest
    sources = (manifest.source, *manifest.further_sources)
    licences = dict.fromkeys(source.licence for source in sources if source.licence)
    roles = {"route": manifest.route.kind, "ways": ", ".join(manifest.way_names)}
    shared = dict.fromkeys(stage.weights for stage in manifest.stages.values() if stage.weights)
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": manifest.name,
        "hashes": _hashes(file_sha256(bundle.path / MANIFEST_FILE)),
        "licenses": [{"license": {"name": licence}} for licence in licences],
        "pedigree": {"ancestors": [_source(source) for source in sources]},
        "components": [
            *(_stage(name, stage) for name, stage in manifest.stages.items()),
            *(
                {"type": "file", "name": each.file, "hashes": _hashes(each.sha256)}
                for each in shared
            ),
        ],
        "modelCard": _card(manifest, calibration),
        "properties": _properties({**roles, "classes": ", ".join(manifest.class_names)}),
    }
    tool = {"type": "application", "name": "dyninfer", "version": dyninfer.__version__}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "tools": {"components": [tool]},
            "component": model,
        },
    }


def _measured(manifest: Manifest, calibration: Calibration) -> Iterator[dict[str, str]]:
    for way, row in zip(manifest.way_names, calibration.ways, strict=False):
        scores = zip(calibration.metrics, (row.scores.primary, row.scores.secondary), strict=True)
        values = {**dict(scores), "agreement with the hardest way": row.agreement}
        values["milliseconds per image"] = row.mean_ms
        for metric, value in values.items():
            if value is not None:
                yield {"type": metric, "value": f"{value:.6g}", "slice": way}


def _hashes(sha256: str) -> list[dict[str, str]]:
    """A list, empty where it is no hash: a source's may be any text."""
    return [{"alg": "SHA-256", "content": sha256}] if re.fullmatch("[0-9a-f]{64}", sha256) else []


def _properties(values: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": f"dyninfer:{name}", "value": str(value)} for name, value in values.items()]


def _source(source: Source) -> dict[str, Any]:
    named = [{"license": {"name": source.licence}}] if source.licence else []
    return {
        "type": "file",
        "name": source.file_name,
        "hashes": _hashes(source.sha256),
        "licenses": named,
    }


def _stage(name: str, stage: Stage) -> dict[str, Any]:
    costs = {"parameters": stage.parameters, "macs": stage.macs, "precision": stage.precision.value}
    return {
        "type": "file",
        "bom-ref": f"stage {name}",
        "name": stage.file,
        "hashes": _hashes(stage.sha256),
        "properties": _properties({"stage": name, **costs}),
    }


def _card(manifest: Manifest, calibration: Calibration | None) -> dict[str, Any]:
    ends = {str(s): s for way in manifest.ways for s in manifest.stages[way.final].outputs}
    card: dict[str, Any] = {
        "modelParameters": {
            "task": _TASKS[manifest.task],
            "architectureFamily": manifest.family,
            "modelArchitecture": f"{manifest.route.kind} of {', '.join(manifest.roles)}",
            "inputs": [{"format": str(spec)} for spec in manifest.image_tensors.values()],
            "outputs": [
                {"format": end} for end, s in ends.items() if s.name in manifest.task.outputs
            ],
        }
    }
    if calibration is not None:
        card["quantitativeAnalysis"] = {
            "performanceMetrics": list(_measured(manifest, calibration))
        }
    return card
