"""Start a command in several processes by torchrun, without its tracebacks: the command's one line is enough.

    python -m xmask3d.cli.launch --standalone --nproc-per-node 2 -m xmask3d train config/rooms/B15N4.yaml

Takes torchrun's arguments; ends with the exit code of the process that failed first.
"""

import logging
import os
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def launch(arguments: list[str]) -> int:
    """Run torchrun and return its exit code, or 128 plus the signal's number if a signal ended it."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Every process would warn that no parameter was unused so far; some are, if the masks of a batch cover no point.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # After a signal, torchrun kills processes that do not end within 30 s, which is too short for a long step plus
    # saving.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "240")
    # Otherwise restarted processes would meet in the earlier store, find the addresses of processes that are gone, and
    # fail or wait for one another.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        main(arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
