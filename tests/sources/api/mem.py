"""Tables that the trainer itself holds: a scheme of the tests."""

import tempfile

from unfreeze_api.sources.base import Source

SOURCE = Source(
    scheme="mem",
    form="mem://NAME",
    about="in memory",
    pattern="[a-z]+",
    holds=("Data",),
    locate=lambda rest, _: f"{tempfile.gettempdir()}/mem/{rest}.csv",
)
