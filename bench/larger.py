"""Texts larger than memory against few of them: what a worker holds, when its first step ends, how long its steps take.

    python -m bench.larger [MIB OF THE LARGE TABLE]

Prints JSON: of a table of 20 MiB and one of 2 GiB, each in a process of its own, anonymous memory at its peak (RssAnon, which cannot
be dropped and read again), seconds to the first step, and processor and clock milliseconds of a step; the differences and ratios, and their goals.
The tables are Parquet without compression, with random texts. Page cache and mapped files are no part of what is held.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would look for another one among the results
SMALL_MIB, LARGE_MIB = 20, 2048
TEXT_BYTES = 1000
STEPS = 150
ROUNDS = 2
GOALS = {"moreMiB": 512, "firstStep": 1.5, "step": 1.03}
_POOL_WORDS = 2_000_000


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_child(Path(sys.argv[2]), Path(sys.argv[3]))), flush=True)
        os._exit(0)  # the loop's thread is held in the middle of a step
    sizes = {"small": SMALL_MIB, "large": int((sys.argv[1:] or [str(LARGE_MIB)])[0])}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = write_model(folder / "model")
        for name, mib in sizes.items():
            write_table(folder / f"{name}.parquet", mib)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in sizes}
        for _ in range(ROUNDS):
            for name in sizes:
                found[name].append(_measured(model, folder / f"{name}.parquet"))
    best = {name: {key: min(one[key] for one in runs) for key in runs[0]} for name, runs in found.items()}
    result = {
        "moreMiB": round(best["large"]["peakMiB"] - best["small"]["peakMiB"]),
        "firstStep": round(best["large"]["firstStepSeconds"] / best["small"]["firstStepSeconds"], 3),
        "firstStepProcessor": round(
            best["large"]["firstStepProcessorSeconds"] / best["small"]["firstStepProcessorSeconds"], 3
        ),
        "step": round(best["large"]["stepProcessorMs"] / best["small"]["stepProcessorMs"], 3),
    }
    print(
        json.dumps({"benchmark": "larger", "mib": sizes, **best, "result": result, "goals": GOALS}, indent=1),
        flush=True,
    )
    if any(result[name] > goal for name, goal in GOALS.items()):
        sys.exit(1)


def write_table(path: Path, mib: int) -> None:
    """Write a table of random texts of about a kilobyte, each another one, with one of two labels."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(1000)]
    pool = " ".join(words[n] for n in rng.integers(0, 1000, _POOL_WORDS).tolist()).encode()
    schema = pa.schema({"text": pa.string(), "label": pa.string()})
    left = (mib << 20) // TEXT_BYTES
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=["label"]) as file:
        while left > 0:
            count = min(left, 16_384)
            starts = rng.integers(0, len(pool) - 2 * TEXT_BYTES, count).tolist()
            texts = [pool[start : start + TEXT_BYTES].decode() for start in starts]
            file.write_table(pa.table([texts, [f"kind {start % 2}" for start in starts]], schema=schema))
            left -= count


def write_model(folder: Path) -> Path:
    """Write a BERT of 2 layers, 128 wide, with a tokenizer of these words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = {name: place for place, name in enumerate(["[PAD]", "[UNK]", *(f"w{n}" for n in range(1000))])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no secret
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)  # noqa: S106 - no secret
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _measured(model: Path, table: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.larger", "--child", str(model), str(table)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _child(model: Path, table: Path) -> dict[str, float]:
    peaks = [0]
    threading.Thread(target=_watch, args=(peaks,), daemon=True).start()
    began = time.perf_counter()
    steps = _steps(model, table)
    next(steps)
    first = time.perf_counter() - began
    first_used = time.process_time()
    used, clock = [], []
    for _ in range(STEPS):
        before, start = time.process_time(), time.perf_counter()
        next(steps)
        used.append(time.process_time() - before)
        clock.append(time.perf_counter() - start)
    return {
        "peakMiB": round(peaks[0] / 1024),
        "firstStepSeconds": round(first, 2),
        "firstStepProcessorSeconds": round(first_used, 2),
        "stepProcessorMs": round(1000 * statistics.median(used), 3),
        "stepMs": round(1000 * statistics.median(clock), 3),
    }


def _steps(model: Path, table: Path) -> Iterator[None]:
    """Take one step of a job at each turn, after all that a worker does before the first."""
    from bench.support.turns import make_job, make_run, steps_of
    from unfreeze_trainer.tasks import open_task

    job = make_job(
        tempfile.mkdtemp(),
        model={"source": f"file://{model}"},
        data={"train": {"source": f"file://{table}"}, "validation": {"fraction": 0.001}},
        task={"type": "TextClassification", "textClassification": {"maxLength": 128}},
    )
    task: Any = open_task(job)
    task.pin_beside()  # as a worker does
    return steps_of(make_run(task))


def _watch(peaks: list[int]) -> None:
    """Keep the most anonymous memory of this process, in KiB."""
    while True:
        lines = Path("/proc/self/status").read_text().splitlines()
        peaks[0] = max(peaks[0], next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")))
        time.sleep(0.01)


if __name__ == "__main__":
    main()
