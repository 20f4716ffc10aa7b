"""timm://: repositories of timm at a hub, brought as those of hf:// are."""

from unfreeze_trainer.sources.schemes.hf import fetch, pin

__all__ = ["fetch", "pin"]
