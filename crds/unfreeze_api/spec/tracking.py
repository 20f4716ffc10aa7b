"""Experiment trackers: who else gets the training's figures. Credentials come from Secrets, never from the spec."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.spec.template import LocalObjectReference


class TensorBoardSpec(Model):
    """TensorBoard's event files. Nothing to choose: they lie in `tensorboard` below output.destination."""


class MlflowSpec(Model):
    """A run in MLflow, of the job's name."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.uri.matches('^(https?://[^/]|file:///)')",
            "must be the address of an MLflow server, like http://mlflow.mlflow:5000, or file:///PATH for a folder",
            ".uri",
        ),
        Rule(
            "!self.uri.matches('^[a-z]+://[^/]*@')",
            "an address must not hold a password: put MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or"
            " MLFLOW_TRACKING_TOKEN, into a Secret and name it in secretRef",
            ".uri",
        ),
    )

    uri: str = Field(min_length=1, max_length=1024)
    """MLflow's tracking URI: the address of its server, or file:///PATH for a folder inside the trainer's container."""
    experiment: str | None = Field(default=None, min_length=1, max_length=256)
    """Experiment that the run belongs to; it is made when it does not exist. Default: the job's namespace."""
    secret_ref: LocalObjectReference | None = None
    """Secret of which these keys become environment variables of the trainer, as far as it has them: MLFLOW_TRACKING_TOKEN,
    or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. Default: no credentials."""


class WandbSpec(Model):
    """A run in Weights & Biases, of the job's name."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.mode == 'Offline' || has(self.secretRef)",
            "mode Online needs secretRef: a Secret with the key WANDB_API_KEY",
            ".secretRef",
        ),
    )

    project: str | None = Field(default=None, min_length=1, max_length=128)
    """Project that the run belongs to. Default: the job's namespace."""
    entity: str | None = Field(default=None, min_length=1, max_length=128)
    """User or team that the project belongs to. Default: that of the API key."""
    mode: Literal["Online", "Offline"] = "Online"
    """Online sends figures at once. Offline writes them to `wandb` below output.destination, for `wandb sync`."""
    secret_ref: LocalObjectReference | None = None
    """Secret of which these keys become environment variables of the trainer: WANDB_API_KEY, and WANDB_BASE_URL for a
    server of your own. Default: none, for mode Offline."""


class TrackingSpec(Model):
    """Experiment trackers that get the training's figures besides: loss, rates, speed, validation and test metrics."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.tensorBoard) || has(self.mlflow) || has(self.wandb)",
            "name at least one tracker: tensorBoard, mlflow or wandb",
        ),
    )

    tensor_board: TensorBoardSpec | None = None
    """TensorBoard: `tensorBoard: {}`. Default: not used."""
    mlflow: MlflowSpec | None = None
    """MLflow. Default: not used."""
    wandb: WandbSpec | None = None
    """Weights & Biases. Default: not used."""
