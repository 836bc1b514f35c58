"""The terminal: one thin file for each subcommand."""
