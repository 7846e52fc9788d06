"""What ``Detections.timings_ms`` is made of: names of its spans, and each image's share of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DECODE = "decode"
"""Reading and decoding a file; only where a path was given."""
PREPARE = "prepare"
"""Resizing and normalising a picture."""
COPY = "copy"
"""Sending images to the device, where its clock tells that apart from the stage that reads them."""
GATHER = "gather"
"""Moving rows into a smaller batch."""
READ_BACK = "read-back"
"""Waiting for easiness and outputs to be on the host, beyond what the device worked meanwhile."""
POSTPROCESS = "postprocess"
"""From an exit's outputs to detections in pixels of the picture."""
OTHER = "other"
"""What is left of a call's time; whoever timed the call finds it, no result carries it."""
RESERVED = frozenset({DECODE, PREPARE, COPY, GATHER, READ_BACK, POSTPROCESS, OTHER})
"""Names that no stage may have."""
BEFORE_STAGES = (DECODE, PREPARE, COPY)
AFTER_STAGES = (GATHER, READ_BACK, POSTPROCESS)


Span = tuple[str, float, Sequence[int]]
"""A step's name, and the milliseconds that rows of a batch took together in it."""
DeviceSpan = tuple[str, float]
"""A stage's name, :data:`COPY` or :data:`GATHER`, and milliseconds by the device's clock."""


def on_device(spans: list[Span], device: Sequence[DeviceSpan]) -> list[Span]:
    """Spans by the host's clock, corrected by the device's.

    On a device the host only enqueues stages and gathers: their times are the device's. Copies
    and gathers are of the rows of the stage that they precede. The host waits for results while
    the device works, so only what it waits beyond that counts as :data:`READ_BACK`. Spans then do
    not overlap, but for the last stages of some rows beside the next stages of others, on two
    streams, and :data:`PREPARE` of a later exit's own images, which the host does meanwhile.

    Args:
        spans: what the host saw, in order.
        device: what the device saw, in order; empty where the host's clock is right. Stages that
            the host did not run in this batch are left out.
    """
    if not device:
        return spans
    timed = dict(device)
    rows_of: dict[str, Sequence[int]] = {}
    kept: list[Span] = []
    reads: list[Span] = []
    waited = worked = 0.0
    for span in spans:
        name, ms, of_rows = span
        if name == READ_BACK:
            waited += ms
            reads.append(span)
        elif name in timed:
            rows_of[name] = of_rows
        elif name != GATHER:
            kept.append(span)
    seen: list[Span] = []
    rows: Sequence[int] | None = None
    for name, ms in reversed(device):
        worked += ms
        rows = rows if name in (COPY, GATHER) else rows_of.get(name)
        if rows is not None:
            seen.append((name, ms, rows))
    beyond = max(0.0, 1 - worked / waited) if waited else 0.0
    return [*kept, *reversed(seen), *[(name, ms * beyond, whose) for name, ms, whose in reads]]


def share_out(spans: Sequence[Span], timings: Sequence[dict[str, float]]) -> None:
    """Add to each row's name -> milliseconds an equal share of every span that it was in.

    The shares of all rows add up to the spans.
    """
    if len(timings) == 1:  # as most calls have: nothing to share, and quicker
        own = timings[0]
        for name, ms, _ in spans:
            own[name] = own.get(name, 0.0) + ms
        return
    for name, ms, of_rows in spans:
        share = ms / len(of_rows)
        for row in of_rows:
            own = timings[row]
            own[name] = own[name] + share if name in own else share


def total_ms(timings_ms: Mapping[str, float], *, decode: bool) -> float:
    """Sum of an image's spans, from its file or from the decoded picture."""
    return sum(ms for name, ms in timings_ms.items() if decode or name != DECODE)
