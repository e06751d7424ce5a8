"""Run a stage that trains a language model in several processes of this machine: as many as `NTULM_RANKS` says.

For the command line. The processes are torchrun's (`torch.distributed.run`), each runs the command that it stands in,
and `ranks.py` joins them. torchrun's own settings are taken from the environment as it takes them, `PET_NNODES` and so
on: with them, machines train together (docs/how-to/several-gpus.md).
"""

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from ntulm.errors import UserError
from ntulm.resources import cores

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

RANKS = "NTULM_RANKS"
EACH_GPU = "all"
NODES = "PET_NNODES"  # torchrun's --nnodes
STARTED = "TORCHELASTIC_RUN_ID"  # torchrun sets it for the processes that it starts
RANK = "RANK"  # it and others; so does what starts one process per machine, which has said how many by that
# Else processes warn of host names that do not resolve, and of a machine that is done a moment before another.
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}


def launched() -> bool:
    """Run this very command in several processes, if the environment asks for it; False: it is to be run here.

    Raises:
        UserError: `NTULM_RANKS` is no number of processes that this machine can run, or one of them was killed.
        SystemExit: one of them failed, and has told why.
    """
    wanted = os.environ.get(RANKS)
    if wanted is None or STARTED in os.environ or (RANK in os.environ and NODES not in os.environ):
        return False
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})  # read with torch
    count = processes(wanted, _gpus())
    if count == 1 and NODES not in os.environ:
        return False
    _run(count, [sys.executable, *sys.orig_argv[1:]])
    return True


def processes(wanted: str, gpus: int) -> int:
    """How many processes `NTULM_RANKS` asks for on a machine with so many GPUs.

    Raises:
        UserError: not a number from 1 on, or more than GPUs where there are any.
    """
    if wanted == EACH_GPU:
        return max(gpus, 1)
    if not (wanted.isascii() and wanted.isdigit() and int(wanted) > 0):
        raise UserError(f"{RANKS}: {wanted!r}; expected a number of processes from 1 on, or {EACH_GPU}: one per GPU")
    if gpus and int(wanted) > gpus:
        raise UserError(f"{RANKS}: {wanted} processes for {gpus} GPUs; expected at most {gpus}, or {EACH_GPU}")
    return int(wanted)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _run(count: int, command: list[str]) -> None:
    """Run a command in so many processes, to the end of all of them."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.disable(logging.CRITICAL)  # torchrun's pages on what a rank tells in a line
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // count, 1)))
    here = [] if NODES in os.environ else ["--standalone", "--local-addr=localhost"]
    try:
        run(parse_args([*here, f"--nproc-per-node={count}", f"--log-dir={os.devnull}", "--no-python", *command]))
    except ChildFailedError as error:
        _tell_of_a_killed(error)
        sys.exit(1)
    except SignalException as stop:
        _end_by(stop.sigval)


def _tell_of_a_killed(error: "ChildFailedError") -> None:
    """Tell of a process that could not do so itself.

    Raises:
        UserError: names the process and the signal.
    """
    rank, failure = error.get_first_failure()
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        why = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        raise UserError(f"the process of rank {rank} was ended by {name}{why}")


def _end_by(number: signal.Signals) -> None:
    """End as one process would that gets this signal."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
