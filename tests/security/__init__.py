"""What must not happen, whatever is given: code from data, floods of memory, a traceback in place of a message."""
