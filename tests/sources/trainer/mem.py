"""Writes the tables of mem:// where they are read."""

from pathlib import Path

from unfreeze_trainer.errors import JobError

TABLES = {"words": "text,label\ngood,1\nbad,0\n"}


def fetch(wanted, pins, how):
    for one in wanted:
        name = one.source.removeprefix("mem://")
        if name not in TABLES:
            raise JobError("InvalidData", f"{one.source}: there is no such table")
        path = Path(one.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TABLES[name])
    return {}
