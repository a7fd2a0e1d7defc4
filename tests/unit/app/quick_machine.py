"""Measures a machine with few and short rounds, in each process that a launcher starts; arguments as the module's."""

import sys

from sciml.planning import machine

machine.ROUNDS, machine.LEAST_S, machine.MANY_ROUNDS = 2, 0.01, 3

if __name__ == "__main__":
    del sys.argv[1:3]  # -m and the name of the module that this stands for
    machine._main()
