"""The outcome of a comparison for people and for programs."""

from evaluation.report.plain import as_json, markdown
from evaluation.report.writing import ContactSheet, write_report

__all__ = ["ContactSheet", "as_json", "markdown", "write_report"]
