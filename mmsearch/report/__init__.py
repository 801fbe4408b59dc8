"""A report on a collection: one page that is opened without a server and loads nothing from anywhere."""

from mmsearch.report.page import write_report
from mmsearch.report.portrait import Portrait

__all__ = ["Portrait", "write_report"]
