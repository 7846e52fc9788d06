"""One stage from ONNX to an engine, for TensorRT 8.6 to 11 and TensorRT-RTX alike."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from dyninfer.bundle.unfinished import write_atomically
from dyninfer.engines.shared_weights import read_shared
from dyninfer.engines.trt.api import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    OnnxParser,
    ParserError,
)
from dyninfer.engines.trt.file_types import StageFile, keep_types
from dyninfer.engines.trt.library import Library, LogCollector, make_logger, start
from dyninfer.engines.trt.progress import Report, make_monitor, run_cancellable
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.errors import EngineBuildError

logger = logging.getLogger("dyninfer")
Active = Callable[[], AbstractContextManager[None]]
_MAX_PARSER_ERRORS = 3


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built.

    Attributes:
        batch: sizes that they take; a stage for single images gets 1 whatever this says.
        compute_capabilities: GPUs to build for without having one; empty for this machine's.
        workspace_bytes: the most scratch memory a kernel may ask for; None for all there is.
        timing_cache: file with measurements of earlier builds, read and replaced.
        version_compatible: let later versions of the library run the engine.
        hardware_compatible: let other GPUs from Ampere on run the engine.
    """

    batch: BatchProfile
    compute_capabilities: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False


def check_options(library: Library, options: EngineOptions) -> None:
    """Refuse what this library cannot do, before any work is done.

    TensorRT-RTX has the functions of a timing cache, but leaves measuring to the machine that runs
    the engine; giving it a cache makes it look for a GPU.

    Raises:
        EngineBuildError: an option does not go with the library.
    """
    if not library.compute_capabilities:
        return
    if options.timing_cache is not None:
        raise EngineBuildError(
            f"{library.title} measures no kernels when it builds, so a timing cache "
            "(--timing-cache) has nothing to keep; leave it out"
        )
    if options.version_compatible or options.hardware_compatible:
        raise EngineBuildError(
            f"{library.title} has no version or hardware compatibility; give several devices "
            "(--for), such as rtx30,rtx40, and build again for another version"
        )


def build_engine(
    library: Library,
    source: StageFile,
    options: EngineOptions,
    report: Report = lambda _share, _phase: None,
    active: Active = nullcontext,
) -> bytes:
    """Build one stage; Ctrl-C cancels where the library can be asked to.

    ``report`` is told of the progress, from another thread; ``active`` makes the GPU to build on
    the current one of a thread, where there is a choice. Returns the engine, serialised.

    Raises:
        EngineBuildError: the file cannot be parsed or built; the message has the node that the
            parser names, or the library's last error.
    """

    def work(cancelled: threading.Event) -> bytes:
        with active():  # CUDA's current device is each thread's own
            return _build(library, source, options, report, cancelled)

    return run_cancellable(work, f"build {source.name}")


def _build(
    library: Library,
    source: StageFile,
    options: EngineOptions,
    report: Report,
    cancelled: threading.Event,
) -> bytes:
    read_shared(source.onnx, f"stage {source.name!r}", source.stage.weights)  # only what is hashed
    logger, messages = make_logger(library)
    builder: Builder = start(library, "Builder", logger, messages)
    network: INetworkDefinition = builder.create_network(library.network_flags)
    parser: OnnxParser = library.module.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source.onnx)):
        raise EngineBuildError(_parser_message(library, source, parser, messages))
    config = builder.create_builder_config()
    _set_batch(library, builder, network, config, source, options.batch)
    _set_options(library, config, options)
    if not library.keeps_types:
        keep_types(library, network, config, source)
    cache = options.timing_cache
    if cache is not None:
        _set_timing_cache(config, cache)
    if library.has("IProgressMonitor"):
        monitor = make_monitor(library, report, cancelled)
        config.progress_monitor = monitor
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        what = "was cancelled" if cancelled.is_set() else f"failed: {messages.reason()}"
        raise EngineBuildError(f"{library.title}: the build of stage {source.name!r} {what}")
    if cache is not None:
        _keep_timings(config, cache)
    return bytes(memoryview(engine))


def _parser_message(
    library: Library, source: StageFile, parser: OnnxParser, messages: LogCollector
) -> str:
    """The parser's errors, each with its node; the first few of them."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    shown = dict.fromkeys(_describe(library, error) for error in errors[:_MAX_PARSER_ERRORS])
    more = len(errors) - _MAX_PARSER_ERRORS
    reason = "; ".join(shown) or messages.reason()
    hint = (
        "; write this part with operators that TensorRT has, or run the bundle with "
        "ONNX Runtime (--backend onnxruntime)"
        if any(error.node() >= 0 for error in errors)
        else ""
    )
    return (
        f"{library.title} cannot read stage {source.name!r} ({source.onnx}): {reason}"
        f"{f'; and {more} more' if more > 0 else ''}{hint}"
    )


def _describe(library: Library, error: ParserError) -> str:
    """What is wrong, after the node where it arose if the parser names one."""
    reason = " ".join(error.desc().split()).rstrip(".")
    if error.node() < 0:
        return reason
    if not library.has("ParserError.node_name") or not error.node_name():
        return f"node number {error.node()}: {reason}"
    return f"node {error.node_name()!r} ({error.node_operator()}): {reason}"


def _set_batch(
    library: Library,
    builder: Builder,
    network: INetworkDefinition,
    config: IBuilderConfig,
    source: StageFile,
    batch: BatchProfile,
) -> None:
    """Profiles for the parts of the batch's range, for a file that has such an axis.

    TensorRT-RTX gets one: it compiles kernels for the sizes that come when an engine runs, and
    parts would only make engines larger and builds longer (2.2 times for a small stage).
    """
    if source.stage.rows_per_run is not None:
        batch = BatchProfile(minimum=1, optimum=1, maximum=1)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in inputs:
        if -1 in (shape := tuple(tensor.shape))[1:]:  # nothing says in what range it would vary
            raise EngineBuildError(
                f"input {tensor.name!r} of stage {source.name!r} has the shape {shape}, expected "
                "all axes but the batch fixed; export the bundle with a fixed image size"
            )
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    parts = [batch] if library.compute_capabilities else batch.parts()
    for part in parts if dynamic else ():
        profile = builder.create_optimization_profile()
        for tensor in dynamic:
            rest = tuple(tensor.shape)[1:]
            profile.set_shape(
                tensor.name, (part.minimum, *rest), (part.optimum, *rest), (part.maximum, *rest)
            )
        if config.add_optimization_profile(profile) < 0:
            raise EngineBuildError(f"stage {source.name!r} does not take the batch range {part}")


def _set_options(library: Library, config: IBuilderConfig, options: EngineOptions) -> None:
    module = library.module
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if library.must_share_profiles:  # every caller, and every batch size, has a context
        config.set_preview_feature(module.PreviewFeature.PROFILE_SHARING_0806, True)
    if library.has("BuilderFlag.REQUIRE_USER_ALLOCATION"):
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, dotted in enumerate(options.compute_capabilities):
            config.set_compute_capability(library.compute_capability(dotted), index)


def _keep_timings(config: IBuilderConfig, path: Path) -> None:
    """Write what was measured; the engine is worth more than that."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, bytes(memoryview(config.get_timing_cache().serialize())))
    except OSError as error:
        logger.warning("timings of kernels are not kept in %s: %s", path, error.strerror)


def _set_timing_cache(config: IBuilderConfig, path: Path) -> None:
    """Give the builder its earlier measurements; those of another version start over."""
    known = path.read_bytes() if path.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(known), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
