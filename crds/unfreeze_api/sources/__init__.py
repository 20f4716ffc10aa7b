"""Where models, data and runs lie: a scheme a file. Whatever else has to know of one follows from its file.

That is the rule of each field of the CRD, descriptions, messages, what pods mount, and the path in job.json.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import lru_cache

from unfreeze_api.grammar.model import Rule
from unfreeze_api.sources.base import Access, Held, Needs, Places, Source

_SHARED = ("base", "bucket")
"""Files that are no scheme's."""


def _declared() -> tuple[Source, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    found = [source for module in modules for source in getattr(module, "SOURCES", None) or (module.SOURCE,)]
    return tuple(sorted(found, key=lambda source: source.order))


SOURCES = _declared()
ACCESS = {source.access.scheme: source.access for source in SOURCES if source.access}
"""By the scheme under which the platform opens it."""
MALFORMED = "without '..', '//' or a '/' at the end"
"""How the message about a source that is none ends."""


def holding(held: Held, sources: Sequence[Source]) -> list[Source]:
    """Return the schemes that something may lie at."""
    return [source for source in sources if held in source.holds]


def rule(held: Held, sources: Sequence[Source] = SOURCES) -> Rule:
    """Return the rule on a field that says where something lies."""
    found = holding(held, sources)
    patterns = "|".join(_grouped([f"{source.scheme}://{source.pattern}" for source in found]))
    forms = " or ".join(source.form for source in found)
    excluded = "".join(
        f" && !self.startsWith('{source.scheme}://{start}')" for source in found for start in source.excluded
    )
    return Rule(f"self.matches(r'^({patterns})$'){excluded}", f"must be {forms}, {MALFORMED}")


def _grouped(patterns: list[str]) -> list[str]:
    """Return alternatives that take the same, those with the same last group as one: the CRD has each of them many times."""
    alike: dict[str, list[str]] = {}
    for pattern in patterns:
        tail = _last_group(pattern)
        alike.setdefault(tail, []).append(pattern.removesuffix(tail))
    return [
        one
        for tail, heads in alike.items()
        for one in ([f"({'|'.join(heads)}){tail}"] if tail and len(heads) > 1 else [head + tail for head in heads])
    ]


def _last_group(pattern: str) -> str:
    """Return the group that a pattern ends in, with its quantifier; nothing where it ends otherwise."""
    if pattern[-2:-1] != ")":
        return ""
    depth, place = 1, len(pattern) - 2
    while depth:
        place -= 1
        depth += {")": 1, "(": -1}.get(pattern[place], 0)
    return pattern[place:]


def described(held: Held, what: str, sources: Sequence[Source] = SOURCES) -> str:
    """Return how such a field is written, for its description: `pvc://CLAIM/PATH for a folder on a volume claim, or ...`."""
    found = [f"{source.form} for {what} {source.about}" for source in holding(held, sources)]
    return ", or ".join(filter(None, (", ".join(found[:-1]), found[-1])))


def forms(held: Held, sources: Sequence[Source] = SOURCES) -> str:
    """Return how such a field is written, in short."""
    return " or ".join(source.form for source in holding(held, sources))


@lru_cache(maxsize=256)  # an operator sees the sources of all jobs that ever were
def needs(uri: str) -> Needs:
    """Return what a pod must have for a source; nothing for what is none."""
    scheme, _, rest = uri.partition("://")
    return next((source.needs(rest) for source in SOURCES if source.scheme == scheme), Needs())


def access_of(uri: str) -> list[Access]:
    """Return how the clients that a source needs get to their servers; nothing for what lies on a disk."""
    return [ACCESS[scheme] for scheme in needs(uri).schemes]


def locate(uri: str, places: Places) -> str:
    """Return where a source lies for the trainer."""
    scheme, _, rest = uri.partition("://")
    return next(source.locate(rest, places) for source in SOURCES if source.scheme == scheme)
