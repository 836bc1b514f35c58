"""Jobs: one file for each subcommand with its settings, its function and its report."""
