"""`python -m ntulm COMMAND`: the command line, from the folder one stands in."""

from ntulm.cli import main

main()
