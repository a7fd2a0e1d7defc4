"""miniWeather in torch: dry compressible flow in a vertical plane, batched over members."""

from domains.fluids.solver.background import Background
from domains.fluids.solver.cases import CASES, Bubble, Flow, Jet
from domains.fluids.solver.diagnostics import Totals, totals
from domains.fluids.solver.grid import SolverGrid
from domains.fluids.solver.run import VARIABLES, Frame, run
from domains.fluids.solver.schedule import Schedule

__all__ = [
    "CASES",
    "VARIABLES",
    "Background",
    "Bubble",
    "Flow",
    "Frame",
    "Jet",
    "Schedule",
    "SolverGrid",
    "Totals",
    "run",
]
__all__ += ["totals"]
