"""The operator: watches FineTuneJobs and runs them as Indexed Jobs."""
