"""A router for a frozen cascade: what it reads, what it learns from, and how it is written."""

from enum import Enum


class FeatureKind(str, Enum):
    """What the router reads of a body's outputs."""

    AUTO = "auto"
    DETECTIONS = "detections"
    POOLED = "pooled"
