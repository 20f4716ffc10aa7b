"""`unfreeze run` with the MLP of `mlp`: python -m tests.trainer.run_mlp RUN_FOLDER"""

import signal
import sys
from pathlib import Path

from tests.trainer.engine_group import pods_job
from tests.trainer.ranks import free_port
from unfreeze_trainer.commands.local import run_job

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run below nohup
    sys.exit(run_job(pods_job(Path(sys.argv[1]), free_port()), ("-m", "tests.trainer.mlp_agent")))
