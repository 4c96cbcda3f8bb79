"""One command line for the whole suite: `dpbench VERB`, or `python -m dpbench VERB`."""

from workflow.common import process

process.begin()
