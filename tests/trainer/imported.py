"""What ranks import before and while they train: the fork server of `ranks` imports this once, for all of them.

It starts no thread: those do not come along into a fork.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
from pathlib import Path

import torch
from transformers import conversion_mapping

from tests.support.disk import flush_nothing
from unfreeze_trainer.engines.deepspeed import import_deepspeed
from unfreeze_trainer.exports import page
from unfreeze_trainer.versions import library_versions

IMPORTED_LATE = (
    "accelerate",
    "bitsandbytes",
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.ops.op_builder.all_ops",
    "deepspeed.runtime.superoffload.superoffload_stage3",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "networkx",
    "peft",
    "pytest",
    "timm",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "torch.distributed.fsdp",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "transformers.pipelines",
    "unfreeze_trainer.tasks",
    "unfreeze_trainer.worker",
)

import_deepspeed()
for module in IMPORTED_LATE:
    importlib.import_module(module)
# What a process makes once, as it loads its first model and writes its first report.
conversion_mapping.get_checkpoint_conversion_mapping("bert")
library_versions()
page.template()
torch.set_num_threads(1)
gc.collect()
gc.freeze()  # as a worker does: each phase change collects
flush_nothing()
threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
assert len(threads) == 1, threads
atexit.register(os._exit, 0)  # at the end of its work libraries would complain of each other
