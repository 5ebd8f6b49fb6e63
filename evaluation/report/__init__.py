"""The outcome of a comparison for people and for programs."""

from evaluation.report.plain import as_json, failures, markdown
from evaluation.report.writing import ContactSheet, write_report

__all__ = ["ContactSheet", "as_json", "failures", "markdown", "write_report"]
