"""Scores of synthetic sets, and the tables and figures made of them."""

from workflow.common import process

process.begin()
