"""Will it fit: what a job will hold in memory, found before anything is loaded or computed."""
