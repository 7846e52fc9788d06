"""Looks at an imported TensorRT; run as a program, it prints what it finds as JSON.

Nothing but the bindings and this project's own modules is imported: it runs once for each version.
"""

from __future__ import annotations

import importlib
import json
import threading
from types import ModuleType
from typing import Any

from dyninfer.engines.trt import api
from dyninfer.engines.trt.lane import make_allocator
from dyninfer.engines.trt.library import Flavour, Library, make_logger
from dyninfer.engines.trt.progress import make_monitor
from tests.engines.trt.api_check import members, problem_in_module

PACKAGE = "tensorrt_bindings"


def probe(module: ModuleType | Any) -> dict[str, Any]:
    library = Library(Flavour.TENSORRT, module, str(module.__version__))
    logger, messages = make_logger(library)
    logger.log(module.ILogger.ERROR, "said by the library")
    make_allocator(module.IOutputAllocator, lambda size: size)
    if library.has("IProgressMonitor"):
        make_monitor(library, lambda _share, _phase: None, threading.Event())
    problems = {member.key: problem_in_module(member, module) for member in members(api)}
    return {
        "version": library.version,
        "problems": {key: problem for key, problem in problems.items() if problem},
        "keeps_types": library.keeps_types,
        "must_share_profiles": library.must_share_profiles,
        "network_flags": library.network_flags,
        "heard": list(messages.errors),
    }


if __name__ == "__main__":
    print(json.dumps(probe(importlib.import_module(PACKAGE))))
