"""A trained trial as a short PyTorch program that stands alone: its network, its weights, its training."""

from fanin.script.start import needs_data as needs_data
from fanin.script.write import export_script as export_script
