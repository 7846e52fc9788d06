"""Work for a child process that ends in every way that there is."""

from __future__ import annotations

import errno
import os
import signal
import sys

from dyninfer import InputError
from dyninfer.exporters.limited import Message, Progress, serve


def work(request: Message, progress: Progress) -> Message:
    progress("begun")
    print("noise", flush=True)
    match request["do"]:
        case "refuse":
            raise InputError("no such thing")
        case "fail":
            return {"never": 1 / 0}
        case "fail without a word":
            raise AssertionError
        case "exhaust":
            raise MemoryError
        case "fill":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "crash":
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGABRT)
        case "leave":
            os._exit(7)
    if sys.platform != "linux":
        return {"pid": os.getpid(), "memory": None}
    import resource

    return {"pid": os.getpid(), "memory": resource.getrlimit(resource.RLIMIT_DATA)[0]}


if __name__ == "__main__":
    serve(work)
