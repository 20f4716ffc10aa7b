"""What the schemes of object stores have in common: a bucket, and objects whose keys read like paths. No scheme itself."""

from __future__ import annotations

from dataclasses import dataclass

from unfreeze_api.sources.base import SEGMENT, Access, Needs, Places, Source


@dataclass(frozen=True, slots=True)
class Place:
    """The parts of a source in an object store."""

    scheme: str
    """What stands before ://."""
    bucket: str
    """Bucket, or container of Azure."""
    path: str
    """Key of an object, what several keys begin with, as a folder, or a pattern of keys."""

    @property
    def folder(self) -> str:
        """Folder of the bucket in a cache."""
        return f"{self.scheme}--{self.bucket}"

    @property
    def is_pattern(self) -> bool:
        """Whether the key stands for several objects."""
        return any(sign in self.path for sign in "*?[{")

    def at(self, cache: str, revision: str) -> str:
        """Return where a cache has what the listing of this name holds."""
        return f"{cache}/{self.folder}/snapshots/{revision}/{self.path}"


def parse(uri: str) -> Place:
    """Return a source in its parts; ValueError of one that does not fit its pattern."""
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    if not (bucket and path):
        raise ValueError(f"{uri} names no object: SCHEME://BUCKET/KEY")
    return Place(scheme, bucket, path)


def source(access: Access, *, form: str, about: str, bucket: str, order: int) -> Source:
    """Return the scheme of an object store.

    Parameters
    ----------
    access
        How its client gets there.
    form, about, order
        As of `Source`.
    bucket
        Regular expression of a bucket's name.
    """

    def locate(rest: str, places: Places) -> str:
        return parse(f"{access.scheme}://{rest}").at(places.sources, "listed")

    return Source(
        scheme=access.scheme,
        form=form,
        about=about,
        pattern=rf"{bucket}(/{SEGMENT})+",
        holds=("Model", "Data"),
        locate=locate,
        needs=lambda _: Needs(schemes=(access.scheme,)),
        access=access,
        order=order,
    )
