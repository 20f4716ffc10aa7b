"""One agent in this process, without workers."""

import signal
import threading

from unfreeze_trainer.agent.main import Agent
from unfreeze_trainer.agent.pod import Pod


def test_a_stop_that_takes_long_to_note_is_noted(tmp_path):
    """On a busy machine the handler of SIGTERM outlasts a wait that has a limit."""
    agent = Agent(Pod(0, "127.0.0.1", 0, tmp_path / "job.json", tmp_path / "termination"))

    def note(number, frame):
        threading.Event().wait(0.3)
        agent._stop(number, frame)

    before = signal.signal(signal.SIGALRM, note)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        late = threading.Timer(20, agent._endings.put, ["too late"])
        late.start()
        assert agent._wait() is None
        late.cancel()
    finally:
        signal.signal(signal.SIGALRM, before)
        agent._server.server_close()
