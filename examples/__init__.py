"""Examples of jobs, and the demo that runs one."""
