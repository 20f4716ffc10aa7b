"""kubectl ftj: FineTuneJobs at the command line, for people."""
