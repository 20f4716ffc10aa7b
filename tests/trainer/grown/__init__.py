"""A task that lives in tests alone: one file in each room, `api_tasks` and `trainer_tasks`, and nothing else is touched.

python -m tests.trainer.grown FOLDER
"""
