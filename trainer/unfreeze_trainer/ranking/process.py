"""Ranks the candidates of a job in a process of its own, whose memory and libraries end with it.

    UNFREEZE_JOB=job.json python -m unfreeze_trainer.ranking.process ANSWER

ANSWER gets a `Ranking`, or the `JobError` that ends the job.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from unfreeze_api.contracts.progress import JOB_FILE_ENV, ExitCode
from unfreeze_api.grammar.model import Model
from unfreeze_trainer.errors import JobError, told_of
from unfreeze_trainer.job_file import load_job
from unfreeze_trainer.link import Link, tell, write_atomically
from unfreeze_trainer.ranking.order import Ranking

log = logging.getLogger("unfreeze.ranking")


class Answer(Model):
    """What the process leaves behind."""

    ranking: Ranking | None = None
    reason: str = ""
    """Of the error, without a ranking."""
    message: str = ""


def main() -> int:
    """Rank; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s ranking: %(message)s")
    file, link = Path(sys.argv[1]), Link.from_environment()
    from unfreeze_trainer.ranking.rank import rank

    try:
        job = load_job(Path(os.environ[JOB_FILE_ENV]), say=False)
        answer = Answer(ranking=rank(job, tell=lambda text: tell(link, text)))
    except JobError as error:
        log.error("%s: %s", error.reason, error.message)  # noqa: TRY400 - it says all
        answer = Answer(reason=error.reason, message=told_of(error)[0])
    write_atomically(file, answer.to_json())
    return int(ExitCode.DONE if answer.ranking else ExitCode.JOB_ERROR)


if __name__ == "__main__":
    sys.exit(main())
