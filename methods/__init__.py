"""Training methods, one a file, and the commands of a run."""

from workflow.common import process

process.begin()
