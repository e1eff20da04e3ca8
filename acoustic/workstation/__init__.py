"""The use cases, shared by the page and the command line.

station     analyse, look at a whole track, describe, teach, keep models
scanning    a folder into the library
cluster     the same on a Ray cluster
reviewing   what a page shows of a song that waits for a person
learning    decisions -> genres of the person's own: offer, accept, roll back
tagging     genres into files, and back
performance where the milliseconds went: what page and command line read
bottleneck  which stage holds the songs up, in words
what_if     two ways on the same song
settling    what a program that died left half done
"""

from .station import OVERVIEW_COLUMNS, Example, Taught, Workstation

__all__ = ["OVERVIEW_COLUMNS", "Example", "Taught", "Workstation"]
