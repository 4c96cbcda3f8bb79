"""How fast this machine's build trains."""

from workflow.common import process

process.begin()
