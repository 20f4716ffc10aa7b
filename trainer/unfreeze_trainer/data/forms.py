"""Types of columns in several files of one table: writers choose them by what a file holds, so that one column has several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfreeze_trainer.errors import JobError, quoted

if TYPE_CHECKING:
    import pyarrow as pa


def in_form(table: pa.Table, form: pa.Schema | None) -> pa.Table:
    """Return a table whose columns are dictionaries where those of the files before are, and are none elsewhere.

    pandas writes categories as dictionaries, and a file without them as plain values.
    """
    import pyarrow as pa

    for place, field in enumerate(form or ()):
        own, is_dictionary = table.column(place), pa.types.is_dictionary(field.type)
        if pa.types.is_dictionary(own.type) and not (is_dictionary or pa.types.is_null(field.type)):
            own = own.cast(own.type.value_type)
        elif is_dictionary and not (pa.types.is_dictionary(own.type) or pa.types.is_null(own.type)):
            own = own.dictionary_encode()
        else:
            continue
        table = table.set_column(place, field.name, own)
    return table


def widened(form: pa.Schema | None, schema: pa.Schema, where: str) -> pa.Schema:
    """Return types that hold the values of the files before and of the next: 32 bits and 64, whole numbers and others, nothing and anything.

    JobError InvalidData where there are none, as of texts and numbers.
    """
    import pyarrow as pa

    if form is None or form.equals(schema):
        return schema
    try:
        return pa.unify_schemas([form, schema], promote_options="permissive")
    except pa.ArrowException as error:
        raise JobError(
            "InvalidData", f"{where}: its columns have other types than those of the files before: {quoted(error)}"
        ) from error
