"""`unfreeze predict` and `unfreeze evaluate`: what a finished model says of data, and how good it is on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from unfreeze_trainer.commands.data import DataPath, column_option, named, require_other
from unfreeze_trainer.commands.local import judged, table_or_json

if TYPE_CHECKING:
    import pyarrow as pa

    from unfreeze_trainer.commands.asked import Asked
    from unfreeze_trainer.commands.finished import Finished

BATCH_SIZE = 32


def _asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments MODEL and DATA, and the options of both commands; JobError ends it with 2."""

    @wraps(command)
    def decorated(**options: Any) -> None:
        with judged():
            command(**options)

    for add in (
        click.argument("data", type=DataPath(exists=True, path_type=Path)),
        click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path)),
        column_option,
        click.option(
            "--class",
            "classes",
            multiple=True,
            metavar="NAME",
            help="Of an export of Alignment: a class that pictures or clips are told to be of, by its name; may be given several times.",
        ),
        click.option(
            "--prompt",
            "prompts",
            multiple=True,
            metavar="TEXT",
            help="What such a class is called in a text, in which {} stands for its name, like 'a drawing of a {}.'; of several the mean"
            " of their vectors counts.",
        ),
        click.option(
            "--base",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder of the base model of an adapter. Default: where the adapter says that it lies.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(1),
            default=BATCH_SIZE,
            show_default=True,
            help="Samples that go through the model at once; those of alike length together.",
        ),
        click.option(
            "--on-error",
            type=click.Choice(["fail", "skip"]),
            default="fail",
            show_default=True,
            help="What becomes of a row that cannot be read: the first one ends the command, or they are left out.",
        ),
        click.option(
            "--device", help="Where it computes, like cpu or cuda:0. Default: an accelerator if there is one."
        ),
    ):
        decorated = add(decorated)
    return decorated


@click.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that is written, .csv, .jsonl or .parquet. Default: standard output.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "jsonl"]),
    default="csv",
    show_default=True,
    help="Of standard output.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Probability from which on a label is predicted, where a row may have several. Default: that of each label in the"
    " export's unfreeze.json, which validation data gave; where it has none, those above 0.5.",
)
@click.option(
    "--inputs/--no-inputs",
    default=None,
    help="Write the texts, or the paths of files, beside the predictions. Default: where DATA is a folder, whose files have no other order than"
    " that of their names.",
)
@click.option("--force", is_flag=True, help="Overwrite the file that is there.")
@_asking
def predict(
    *,
    model: Path,
    data: Path,
    columns: tuple[str, ...],
    classes: tuple[str, ...],
    prompts: tuple[str, ...],
    base: Path | None,
    batch_size: int,
    on_error: str,
    device: str | None,
    output: Path | None,
    kind: Literal["csv", "jsonl"],
    threshold: float | None,
    inputs: bool | None,
    force: bool,
) -> None:
    """Print what MODEL says of each row of DATA.

    MODEL is the folder of an export, or of a run; an adapter takes --base. DATA is a table, a pattern of tables ('new-*.parquet'), or a folder of
    the kind that the model was trained on, without labels or with: what is right is not read. The columns are those of a run's predictions
    (docs/predictions.md), without label; of speech row and prediction, the text that the model writes of the clip.
    """
    from unfreeze_trainer.commands.asked import SPLIT, decide
    from unfreeze_trainer.commands.finished import find_model
    from unfreeze_trainer.commands.generated import written
    from unfreeze_trainer.commands.rows import FORMATS, opened
    from unfreeze_trainer.exports.predictions import About

    format_ = output.suffix.lower().removeprefix(".") if output else kind
    if format_ not in FORMATS:
        raise click.BadParameter(
            f"{output}: files end in {', '.join(f'.{name}' for name in FORMATS)}", param_hint="--output"
        )
    if output and output.exists() and not force:  # before anything is computed
        raise click.ClickException(f"{output} is there already: --force overwrites it, --output names another file")
    require_other(output, data)
    if prompts and not classes:
        raise click.UsageError("--prompt says what classes are called: name them by --class")
    finished = find_model(model, base, by_words=bool(classes))
    opened_by = {"columns": named(columns), "labelled": False, "skip": on_error == "skip", "device": device}
    asked = _ask(finished, data, (classes, prompts) if classes else None, opened_by)
    decide(asked, threshold)
    inputs = data.is_dir() if inputs is None else inputs
    answers = asked.task.answers
    about: dict[str, Any] = {"kind": "Texts", "names": []}
    said = written(asked, batch_size, inputs=inputs)
    if answers is not None:
        about = {"kind": answers.kind, "names": answers.names, "unseen": answers.unseen}
        said = predictions(asked, batch_size, inputs=inputs)
    described = About(source=str(data), task=asked.task.job.task.type, **about)
    with opened(output, format_, described, force=force) as rows:
        for found in said:
            rows.write(found)
    left_out = sum(asked.task.left_out.values()) + len(asked.task.unread[SPLIT])
    if left_out:
        click.echo(f"{left_out:,} rows of {data} could not be read and were left out", err=True)


def predictions(asked: Asked, batch_size: int, *, inputs: bool) -> Iterator[dict[str, pa.Array]]:
    """Yield rows of predictions in the order of the data, some thousand at a time."""
    import numpy as np
    import pyarrow as pa

    from unfreeze_trainer.commands.asked import SPLIT, chunks
    from unfreeze_trainer.objectives.answers import ABSENT, ANSWERED

    task = asked.task
    answers, counts = task.answers, task.rows_of(SPLIT)
    assert answers is not None
    said = asked.outputs(batch_size)
    for samples in chunks(task):
        first = np.cumsum(counts[samples]) - counts[samples]
        rows = int(counts[samples].sum())
        outputs, states = np.zeros((rows, answers.width), answers.dtype), np.full(rows, ABSENT, dtype=np.uint8)
        for _ in range(-(-len(samples) // batch_size)):
            these, found, batch = next(said)
            values, kept = (tensor.cpu().numpy() for tensor in task.keep(found, batch))
            own = np.arange(values.shape[1]) < counts[these][:, None]
            places = (first[these - samples[0]][:, None] + np.arange(values.shape[1]))[own]
            outputs[places], states[places] = values[own], kept[own]
        whole = ((states == ANSWERED) | (states == ABSENT)).all()
        answered = answers.columns(outputs, None if whole else states == ANSWERED)
        known = task.known(SPLIT, samples, inputs=inputs)
        known.pop("label")
        there = pa.array(states != ABSENT)
        yield {name: column.filter(there) for name, column in (known | answered).items()}


def _ask(
    finished: Finished, data: Path, words: tuple[Sequence[str], Sequence[str]] | None, opened_by: Mapping[str, Any]
) -> Asked:
    """Open a model and data by the parameters of `ask`; where classes are told by words, with these and their prompts."""
    from unfreeze_trainer.commands.asked import ask, tell_cut

    if words:
        from unfreeze_trainer.commands.by_words import ask_by_words

        asked = ask_by_words(finished, data, *words, **opened_by)
    else:
        asked = ask(finished, data, **opened_by)
    tell_cut(asked.task, data)
    return asked


@click.command()
@table_or_json
@_asking
@click.option(
    "--generate",
    type=click.IntRange(1, 131_072),
    metavar="TOKENS",
    help="Of models that make texts: have it say so many tokens of each sample, and measure exactMatch, rougeL and chrF; of speech wer and cer.",
)
def evaluate(
    *,
    generate: int | None,
    model: Path,
    data: Path,
    columns: tuple[str, ...],
    classes: tuple[str, ...],
    prompts: tuple[str, ...],
    base: Path | None,
    batch_size: int,
    on_error: str,
    device: str | None,
    kind: Literal["table", "json"],
) -> None:
    """Print how good MODEL is on DATA, by the metrics of its task.

    MODEL and DATA are as of `unfreeze predict`; DATA says what is right. On the test data of a run the figures are those of
    its report, of several labels too: a label is predicted above 0.5.
    """
    from unfreeze_trainer.commands.asked import SPLIT
    from unfreeze_trainer.commands.finished import BY_WORDS, find_model, no_answers
    from unfreeze_trainer.data.shards import is_table_folder
    from unfreeze_trainer.exports.outcome import in_json

    by_words = bool(classes or prompts)
    finished = find_model(model, base, measured=True, by_words=by_words)
    if (
        finished.described.task["type"] == BY_WORDS
        and not by_words
        and data.is_dir()
        and not is_table_folder(str(data))
    ):
        raise no_answers(finished.folder, BY_WORDS)  # pictures by label
    opened_by = {"columns": named(columns), "labelled": True, "skip": on_error == "skip", "device": device}
    asked = _ask(finished, data, (classes, prompts) if by_words else None, opened_by)
    figures, worth = measured(asked, batch_size)
    if generate:
        from unfreeze_trainer.commands.generated import generated

        figures |= generated(asked, generate)
    left_out = sum(asked.task.left_out.values()) + len(asked.task.unread[SPLIT])
    samples = asked.task.splits[SPLIT] - len(asked.task.unread[SPLIT])
    if kind == "json":
        useful = worth and worth.model_dump(by_alias=True)
        found = {"samples": samples, "skipped": left_out, "metrics": in_json(figures), "usefulness": useful}
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{samples:,} samples" + (f", {left_out:,} could not be read and were left out" if left_out else ""))
    width = max(map(len, figures))
    for name, value in figures.items():
        click.echo(f"{name.ljust(width)}  {value:.4f}")
    if worth:
        click.echo(f"{'better than' if worth.better else 'no better than'} guessing: {worth.message}")


def measured(asked: Asked, batch_size: int) -> tuple[dict[str, float], Any]:
    """Return the metrics of a model on labelled data, and whether it is better than guessing.

    Raises
    ------
    JobError
        InvalidData: no sample can be read.
    """
    import torch

    from unfreeze_trainer.commands.asked import SPLIT
    from unfreeze_trainer.errors import JobError

    task = asked.task
    count, metrics, rows = task.splits[SPLIT], task.metrics, list[torch.Tensor]()
    state, gathers = metrics.state_of(count), metrics.gathers(count)
    for _, outputs, batch in asked.outputs(batch_size):
        metrics.update(state, outputs, batch)
        if gathers:
            rows.append(metrics.rows(outputs, batch).cpu())
    figures = metrics.compute(state, torch.cat(rows) if gathers else None)
    if not figures:
        raise JobError("InvalidData", f"{task.job.data.train.path}: none of the {count} samples can be read")
    worth = metrics.usefulness(state, task.labels, asked.finished.described.metric or task.job.metric.name)
    return figures, worth and worth.model_copy(update={"message": worth.message.replace("validation ", "")})
