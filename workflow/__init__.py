"""The graph of files: its configuration, the data stage, and what all stages share."""

from workflow.common import process

process.begin()
