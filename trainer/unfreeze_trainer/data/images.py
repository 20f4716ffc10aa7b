"""Images: folders with one sub-folder per label, and tables of paths or of the files' content."""

from __future__ import annotations

import logging

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.files import CHECKED_FILES, FileKind, check_headers, file_name, read_files
from unfreeze_trainer.data.pictures import FORMATS, PictureError, open_picture, spare_channels
from unfreeze_trainer.data.samples import LABELS, DataSource, TargetKind
from unfreeze_trainer.errors import unmarked

log = logging.getLogger(__name__)

PICTURES = FileKind("image", "picture", "pictures", "image", "images", FORMATS)


def read_images(
    dataset: Dataset,
    where: str,
    *,
    skip: bool = False,
    head: bool = False,
    checked: int = CHECKED_FILES,
    kind: TargetKind = LABELS,
) -> DataSource:
    """Read a folder of images, or a table of paths relative to it or of the files' content; JobError for broken ones.

    Parameters
    ----------
    dataset, where
        What is read, and what messages start with.
    skip
        Leave out rows of a table without a picture or a label. Pictures that cannot be read are left out when it is their
        turn, and not looked at here: what is trained on depends on no clock.
    head
        Read the first rows of a table alone.
    checked
        Images whose header is read; of more, so many at even distances.
    kind
        Of the targets.
    """
    source = read_files(PICTURES, dataset, where, skip=skip, head=head, targets=kind)
    if not skip:
        check_pictures(source, checked)
    return source


def sample_name(source: DataSource, row: int) -> str:
    """Return what a JobError's message calls a picture: its source, and its path, or its row where it stands in a table."""
    return file_name(PICTURES, source, row)


def check_pictures(source: DataSource, checked: int) -> None:
    """Read the headers of some pictures, at even distances. JobError InvalidData."""
    spare = list[str]()

    def broken(row: int) -> str:
        try:
            with open_picture(source.content(row)) as image:
                if count := spare_channels(image):
                    spare.append(f"{count} in {sample_name(source, row).removeprefix(f'{source.where}: ')}")
        except PictureError as error:
            return str(error)
        return ""

    check_headers(PICTURES, source, checked, broken)
    if spare:
        log.warning(
            "%s: %d pictures have channels that are neither colour nor alpha (%s), which are left out",
            source.where,
            len(spare),
            unmarked(min(spare)),
        )
