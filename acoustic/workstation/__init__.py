"""The use cases, shared by the page and the command line.

station     analyse, look at a whole track, describe, teach, keep models
"""

from .station import OVERVIEW_COLUMNS, Example, Taught, Workstation

__all__ = ["OVERVIEW_COLUMNS", "Example", "Taught", "Workstation"]
