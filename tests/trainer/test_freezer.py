"""The freezer: what a phase trains moves, everything else stays bit for bit, BatchNorm's statistics included."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from unfreeze_trainer.models.blocks import Block, find_blocks
from unfreeze_trainer.phases.compile import Phase
from unfreeze_trainer.phases.freezer import Freezer

RATES = {"embeddings": 0.01, "layer.0": 0.02, "layer.1": 0.03, "head": 0.1}


def build(*, affine: bool = True) -> tuple[nn.Module, list[Block]]:
    torch.manual_seed(0)
    parts = [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=affine), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
    ]
    module = nn.Sequential(*parts)
    names = [name for name, _ in module.named_parameters()]
    return module, [Block(b, tuple(n for n in names if n.startswith(f"{i}."))) for i, b in enumerate(RATES)]


def phase(*trainable: str) -> Phase:
    return Phase(0, trainable[0], trainable, {name: RATES[name] for name in trainable}, 0, 5)


def train(module: nn.Module, freezer: Freezer, of: Phase) -> None:
    freezer.apply(of)
    parameters = dict(module.named_parameters())
    groups = [
        {"params": [parameters[name] for name in group.names], "lr": group.lr, "weight_decay": group.weight_decay}
        for group in freezer.groups(of, 0.1)
    ]
    optimizer = torch.optim.AdamW(groups)
    for step in range(4):
        if step == 2:  # an evaluation in between
            module.eval()
            module(torch.randn(2, 3, 9, 9))
            freezer.train_mode()
        optimizer.zero_grad()
        module(torch.randn(4, 3, 9, 9)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_frozen_blocks_stay_bit_for_bit(count: int) -> None:
    module, blocks = build()
    freezer = Freezer(module, blocks, ())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    trainable = list(RATES)[-count:]
    train(module, freezer, phase(*trainable))
    for name, tensor in module.state_dict().items():
        moved = not torch.equal(tensor, before[name])
        assert moved == (list(RATES)[int(name[0])] in trainable), name


def test_everything_trains_and_statistics_follow() -> None:
    module, blocks = build()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    train(module, Freezer(module, blocks, ()), phase(*RATES))
    assert [name for name, tensor in module.state_dict().items() if torch.equal(tensor, before[name])] == []


def test_statistics_without_parameters_freeze_with_the_backbone() -> None:
    module, blocks = build(affine=False)
    before = module[1][1].running_mean.clone()  # type: ignore[index]
    train(module, Freezer(module, blocks, ()), phase("head"))
    assert torch.equal(module[1][1].running_mean, before)  # type: ignore[index]


def test_unfreezing_and_freezing_again() -> None:
    module, blocks = build()
    freezer = Freezer(module, blocks, ())
    freezer.apply(phase(*RATES))
    module(torch.randn(2, 3, 9, 9)).sum().backward()
    freezer.apply(phase("head"))
    parameters = dict(module.named_parameters())
    assert all(parameters[name].grad is None for name in parameters if not name.startswith("3."))
    assert not module[0][1].training  # type: ignore[index]
    assert [name for name in parameters if parameters[name].requires_grad] == freezer.trainable_names(phase("head"))
    freezer.apply(phase(*RATES))
    assert all(part.training for part in module.modules())


def test_groups_divide_the_trainable_parameters() -> None:
    module, blocks = build()
    freezer = Freezer(module, blocks, ())
    of = phase("layer.1", "head")
    groups = freezer.groups(of, 0.1)
    assert [(group.block, group.decay, group.lr, group.weight_decay) for group in groups] == [
        ("layer.1", True, 0.03, 0.1),
        ("layer.1", False, 0.03, 0.0),
        ("head", True, 0.1, 0.1),
        ("head", False, 0.1, 0.0),
    ]
    names = list(itertools.chain.from_iterable(group.names for group in groups))
    assert sorted(names) == sorted(freezer.trainable_names(of))
    shapes = dict(module.named_parameters())
    assert all((shapes[name].ndim > 1) == group.decay for group in groups for name in group.names)


def test_with_an_adapter_only_its_parameters_train() -> None:
    module, blocks = build()
    adapter = {"2.0.bias", "3.2.weight", "3.2.bias"}
    freezer = Freezer(module, blocks, adapter)
    assert freezer.trainable_names(phase(*RATES)) == ["2.0.bias", "3.2.weight", "3.2.bias"]
    assert freezer.trainable_names(phase("head")) == ["3.2.weight", "3.2.bias"]
    assert [group.block for group in freezer.groups(phase(*RATES), 0.0)] == ["layer.1", "head", "head"]
    freezer.apply(phase(*RATES))
    assert not module[2][1].training  # type: ignore[index] - the base's statistics are not the adapter's


def test_blocks_must_cover_the_module() -> None:
    module, blocks = build()
    with pytest.raises(ValueError, match=r"3\.2"):
        Freezer(module, blocks[:-1], ())


def bitfit(*trainable: str) -> Phase:
    return replace(phase(*trainable), part="BiasesAndNorms")


def test_bitfit_trains_biases_norms_and_the_whole_head() -> None:
    module, blocks = build()
    freezer = Freezer(module, blocks, ())
    names = freezer.trainable_names(bitfit(*RATES))
    assert names == [
        *(f"{block}.{part}" for block in range(3) for part in ("0.bias", "1.weight", "1.bias")),
        "3.2.weight",
        "3.2.bias",
    ]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    train(module, freezer, bitfit(*RATES))
    moved = [name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved == names


class Odd(nn.Module):
    """What norms, biases and weights look like in the libraries."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.ChannelNorm = ChannelNorm()
        self.conv = ConvNormAct()
        self.q_bias = nn.Parameter(torch.zeros(2, 2))
        self.gamma = nn.Parameter(torch.ones(4))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.head = nn.Linear(4, 2)

    def no_weight_decay(self) -> set[str]:
        return {"cls_token"}


class ChannelNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 4, 1, 1))


class ConvNormAct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1, bias=False)
        self.bn = nn.BatchNorm2d(4)


def test_decay_goes_by_what_a_parameter_is_not_by_its_shape() -> None:
    module = Odd()
    names = [name for name, _ in module.named_parameters()]
    blocks = [
        Block("embeddings", tuple(n for n in names if "head" not in n)),
        Block("head", ("head.weight", "head.bias")),
    ]
    freezer = Freezer(module, blocks, ())
    decayed = {
        name for group in freezer.groups(phase("embeddings", "head"), 0.1) if group.decay for name in group.names
    }
    assert decayed == {"embed.weight", "conv.conv.weight", "head.weight"}
    small = freezer.trainable_names(bitfit("embeddings", "head"))
    assert small == ["q_bias", "ChannelNorm.weight", "conv.bn.weight", "conv.bn.bias", "head.weight", "head.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("count", [1, 3])
def test_statistics_of_frozen_blocks_stay_and_those_of_trained_ones_move(name: str, count: int) -> None:
    import timm

    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=3)
    head = {key for key, _ in module.named_parameters() if key.startswith(("fc.", "classifier."))}
    blocks = find_blocks(module, head)
    trainable = tuple(block.name for block in blocks[-count:])
    of = Phase(0, "head", trainable, dict.fromkeys(trainable, 0.01), 0, 3)
    freezer = Freezer(module, blocks, ())
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    freezer.apply(of)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    for _ in range(2):
        module(torch.randn(4, 3, 64, 64)).square().sum().backward()
        optimizer.step()
    owner = {key.rpartition(".")[0]: block.name for block in blocks for key in block.parameters}
    statistics = [key for key in before if key.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert len(statistics) > 10
    after = module.state_dict()
    for key in statistics:
        moved = not torch.equal(after[key], before[key])
        assert moved == (owner[key.rpartition(".")[0]] in trainable), key


def test_dropout_of_frozen_blocks_stays_on() -> None:
    module = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), nn.Linear(4, 2))
    blocks = [Block("layer.0", ("0.0.weight", "0.0.bias")), Block("head", ("1.weight", "1.bias"))]
    Freezer(module, blocks, ()).apply(phase("head"))
    assert module[0][1].training  # type: ignore[index]
