"""How the command line looks: rich tables on stdout, progress and errors on stderr. No decisions are taken here."""

from .console import follow, note, out, print_error, print_table, progress, safe, stages
from .library import print_history, print_library
from .models import print_card, print_checks, print_int8, print_models
from .personal import print_comparison, print_lesson, print_versions
from .songs import print_evaluation, print_failures, print_results

__all__ = [
    "follow",
    "note",
    "out",
    "print_card",
    "print_checks",
    "print_comparison",
    "print_error",
    "print_evaluation",
    "print_failures",
    "print_history",
    "print_int8",
    "print_lesson",
    "print_library",
    "print_models",
    "print_results",
    "print_table",
    "print_versions",
    "progress",
    "safe",
    "stages",
]
