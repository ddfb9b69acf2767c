"""What a run found out, for the terminal, for programs and for people."""

from embfit.report.terminal import print_table
from embfit.report.writing import write_report

__all__ = ["print_table", "write_report"]
