"""The command line with one more command, which fails as it is told to, for tests/test_ranks.py: no model is loaded."""

import os
import signal
import time

from ntulm import cli
from ntulm.errors import UserError


@cli.app.command()
def fault(kind: str) -> None:
    """Fail in one of the processes, or in none."""
    from ntulm.language_model.launch import launched

    if launched():
        return
    import torch

    from ntulm.language_model.ranks import joined

    with joined() as ranks:
        second = ranks.own == 1
        os.write(1, f"rank {ranks.own} of {ranks.count}\n".encode())  # at once: the other rank writes there too
        if (second and kind == "mistake") or kind == "same mistake":
            raise UserError("a mistake; expected none")
        if second and kind == "bug":
            raise ValueError("a bug")
        if second and kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if second and kind == "endless":
            time.sleep(600)
        numbers = ranks.gather(torch.arange(ranks.own + 1)).tolist()
        if ranks.leads:
            print(numbers, flush=True)


if __name__ == "__main__":
    cli.main()
