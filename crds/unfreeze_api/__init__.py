"""The API of Unfreeze: models of FineTuneJob, their resolution, and the contracts between pods and operator."""
