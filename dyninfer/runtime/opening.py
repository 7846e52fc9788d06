"""Opening a bundle on a device."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dyninfer.builds.auto import AUTO, auto_choice, check_auto
from dyninfer.builds.builder import choose_build
from dyninfer.bundle.folder import Bundle, StageChecks
from dyninfer.bundle.signature import check_bundle
from dyninfer.engines import open_backend
from dyninfer.engines.deadline import check_deadline
from dyninfer.engines.threads import Threads
from dyninfer.errors import InputError
from dyninfer.images.pictures import MAX_PIXELS, check_max_pixels
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.session import DEFAULT_BATCH, Session
from dyninfer.types import is_whole, shown


def load(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    backend: str | None = None,
    provider: str | None = None,
    precision: str | None = None,
    trusted_key: str | os.PathLike[str] | None = None,
    build: bool = True,
    max_batch: int | None = None,
    threads: Threads = None,
    speculative_head: bool = False,
    on_failure: Literal["raise", "degrade"] = "raise",
    deadline_ms: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Detector:
    """Open a bundle.

    Args:
        path: the bundle's folder, ``NAME.dyn``, or the name of a model that ships with the package,
            such as ``"everyday"``; ``dyninfer models`` lists them.
        device: ``"cpu"`` or ``"cuda:0"``, with OpenVINO ``"gpu:0"`` (Intel's, not run); None for
            the CPU, or for the first GPU where the backend needs one.
        backend: ``"onnxruntime"``, ``"openvino"``, ``"tensorrt"`` or ``"tensorrt-rtx"``; on a CPU
            also one for each stage, ``"first=onnxruntime,second=openvino"``; None for ONNX Runtime.
            ``"auto"`` for the fastest of each stage, with its precision, as ``dyninfer build
            --backend auto`` has measured it on this machine; where that does not hold any more, the
            log says why, and ONNX Runtime opens the files as they were exported.
        provider: ONNX Runtime's execution provider, ``"cpu"``, ``"cuda"`` or ``"tensorrt"``;
            None takes the device's own.
        precision: ``"fp16"``, ``"int8"``, or one for each stage as in
            ``"first=int8,router=fp32,second=fp16"``; None for the files as they were exported.
            What is not the export's own is made beforehand by ``dyninfer build``. OpenVINO computes
            in ``"bf16"`` with the files as they are, where the processor can.
        trusted_key: a public key in PEM. What its owner did not sign with ``dyninfer sign`` is
            refused before any engine is opened, builds that are there included; one that is made
            now is made from what was signed. Needs the extra ``sign``.
        build: make engines that the backend lacks, which can take minutes; False refuses and
            says what differs from those that are there.
        max_batch: longer lists of images are run in batches of this size; None for 8, or with
            ``backend="auto"`` for the size that was measured to be the fastest. On a CPU, large
            stages run their images one by one, whatever the batch. Memory that the stages'
            tensors may take on a CPU grows with it, up to three quarters of the machine's. On a
            GPU TensorRT's buffers are allocated for so many images when a bundle is opened.
        threads: how many a stage computes with on a CPU; None for one on every core, but no more
            than one for a tiny stage, as a small router. With 1 a call keeps to its own thread, and
            wakes no other: for models that are small, or that share the machine. ``"shared"`` lets
            all ONNX Runtime sessions of the process share one pool of threads,
            worth it where many bundles are open at once. From then on ONNX Runtime refuses
            sessions that the application opens itself with default options; they need
            ``SessionOptions.use_per_session_threads = False``. Where the application has set up
            such a pool itself, it is used in any case.
        speculative_head: start the first head for all images while the easiness travels to the
            host, and drop its results for those that go on. Shortens the wait for easy images on
            a GPU, at the price of a head that hard images did not need; the results are the same.
        on_failure: ``"degrade"`` answers an image by the last exit that worked where a later stage
            fails, is stopped at the deadline, or gives NaN or the like; its ``degraded`` is True,
            and :attr:`dyninfer.Detector.failure_counts` says why. ``"raise"`` ends the call with
            an EngineRunError.
        deadline_ms: of every batch of a call that names no other, in milliseconds. ONNX Runtime
            stops a stage between two of its operators; TensorRT cannot be stopped, but is
            waited for no longer; what answers in place of a late exit comes after that one on the
            GPU, and may take as long again. None waits for ever, as :meth:`dyninfer.Detector.close`
            does.
        max_pixels: the most that a picture read from a file may have; what its file announces is
            looked at before it is decoded. Arrays are taken as they are.

    Raises:
        BundleError: the bundle is incomplete, changed, from a later version, or not signed by
            ``trusted_key``.
        InputError: an argument, or the file of ``trusted_key``, cannot be used.
        BackendUnavailable: backend, device or provider is not there.
        EngineBuildError: no build fits, and none may or can be made here.
    """
    given = dict(locals())
    _check_arguments(path, max_batch, on_failure, deadline_ms, max_pixels)
    bundle = Bundle.read(Path(os.fspath(path)))
    key = None if trusted_key is None else Path(os.fspath(trusted_key))
    if key is not None:
        check_bundle(bundle, key)
    if backend == AUTO:
        check_auto(device, provider, precision)
        backend, precision, max_batch = auto_choice(bundle, max_batch)
    max_batch = DEFAULT_BATCH if max_batch is None else max_batch
    with StageChecks(bundle) as checks:
        bundle.check_records()
        opened = open_backend(backend, device, provider, threads)
        try:
            chosen = choose_build(
                bundle,
                opened,
                precision,
                max_batch,
                may_build=build,
                trusted_key=key,
                checked=checks.wait_all,
            )
        except BaseException:
            opened.close()
            raise
        session = Session(
            bundle,
            opened,
            chosen,
            speculative_head=speculative_head,
            degrade=on_failure == "degrade",
            checks=checks,
            max_batch=max_batch,
        )
        try:
            checks.wait_all()
        except BaseException:
            session.close()
            raise
    # another process may have another working folder
    given |= {"path": bundle.path.absolute(), "trusted_key": key and key.absolute()}
    again = partial(load, **given)
    return Detector(bundle, session, max_batch, chosen, deadline_ms, max_pixels, again)


def _check_arguments(
    path: Any, max_batch: Any, on_failure: Any, deadline_ms: Any, max_pixels: Any
) -> None:
    if max_batch is not None and not is_whole(max_batch, 1):
        raise InputError(f"max_batch is {shown(max_batch)}, expected a whole number from 1 up")
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"a bundle is {type(path).__name__}, expected the path of a folder")
    if on_failure not in ("raise", "degrade"):
        raise InputError(f"on_failure is {on_failure!r}, expected 'raise' or 'degrade'")
    if deadline_ms is not None:
        check_deadline(deadline_ms)
    check_max_pixels(max_pixels)
