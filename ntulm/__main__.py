"""`python -m ntulm COMMAND`: the command line, with the code of the folder one stands in.

The stages of dvc.yaml are run so. The console script `ntulm` takes the installed code instead, which is not that of
an experiment in a folder of its own (`dvc exp run --queue`, `--temp`): old results would be kept under the new code's
hash. `python` is the first on PATH: that of the activated virtual environment, or of `make` and the flows, which set
PATH.
"""

from ntulm.cli import main

main()
