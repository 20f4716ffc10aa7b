"""Writes the tables of mem:// where they are read."""

from unfreeze_trainer.errors import JobError

TABLES = {"words": "text,label\ngood,1\nbad,0\n"}


def fetch(source, path):
    name = source.removeprefix("mem://")
    if name not in TABLES:
        raise JobError("InvalidData", f"{source}: there is no such table")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TABLES[name])
