"""An agent whose workers train the MLP of `mlp`: python -m tests.trainer.mlp_agent"""

from unfreeze_trainer.agent.main import main

if __name__ == "__main__":
    main(("-m", "tests.trainer.mlp"))
