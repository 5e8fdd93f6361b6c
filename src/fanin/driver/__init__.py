"""The driver: studies become trials, trials cohorts, cohorts go to worker processes, records into the store.

It never loads torch (on a CPU-only build), so that it starts at once; the workers do.
"""

from fanin.driver.accounts import Run as Run
from fanin.driver.deadline import TimeUp as TimeUp
from fanin.driver.run import run as run
from fanin.driver.watcher import Watcher as Watcher
