"""Equal tuning: the same budget of one core's seconds to choose the settings of every row, on held-out images."""

from workflow.common import process

process.begin()
