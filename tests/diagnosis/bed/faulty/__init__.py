"""Programs at fault, cause by cause, each with its repaired twin."""
