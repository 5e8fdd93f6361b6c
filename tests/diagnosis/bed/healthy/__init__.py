"""Set-ups that train well, kind by kind."""
