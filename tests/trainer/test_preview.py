"""`unfreeze phases` prints what `unfreeze run` would train, and trains nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.trainer.jobs import bert_folder, make_job, write_csv
from unfreeze_api.cli import main
from unfreeze_trainer.commands.preview import optimizer_bytes, phases

MANIFEST = """
apiVersion: unfreeze.dev/v1alpha1
kind: FineTuneJob
metadata: {name: words}
spec:
  model: {source: pvc://models/bert}
  task: {type: TextClassification}
  data:
    train: {source: pvc://data/words.csv}
    validation: {fraction: 0.25}
  strategy: STRATEGY
  training: {epochs: 3, batchSize: 6}
  distribution: {numNodes: 2, engine: DeepSpeed}
  output: {destination: pvc://results/words}
"""
GRADUAL = "{type: GradualUnfreezing, gradualUnfreezing: {groups: [[pooler, layer.2], [layer.0]], untilPlateau: {}}}"


@pytest.fixture(scope="module")
def claims(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    bert_folder(folder / "models" / "bert")
    (folder / "data").mkdir()
    write_csv(folder / "data" / "words.csv", rows=48)
    return folder


def ask(claims: Path, strategy: str, *options: str):
    file = claims / "job.yaml"
    file.write_text(MANIFEST.replace("STRATEGY", strategy))
    return CliRunner().invoke(phases, [str(file), "--claims", str(claims), *options])


@pytest.mark.slow
def test_a_range_test_is_part_of_the_plan(claims):
    auto = "{type: FullFineTuning, learningRate: {rates: Auto}}"
    assert "too short for a range test" in ask(claims, auto).output
    long = MANIFEST.replace("STRATEGY", auto).replace("epochs: 3", "epochs: 30")
    (claims / "long.yaml").write_text(long)
    asked = CliRunner().invoke(phases, [str(claims / "long.yaml"), "--claims", str(claims), "-o", "json"])
    assert json.loads(asked.output)["rangeTestSteps"] == 14
    assert "rangeTestSteps" not in json.loads(ask(claims, "{type: FullFineTuning}", "-o", "json").output)


@pytest.mark.slow
def test_the_table_tells_of_adapters(claims):
    lora = (
        "{type: GradualUnfreezing, gradualUnfreezing: {stepsPerPhase: 2}}\n  adapter: {type: LoRA, baseWeights: BASE}"
    )
    told = ask(claims, lora.replace("BASE", "ByStrategy")).output
    assert "words: GradualUnfreezing with LoRA, 18 steps" in told
    assert "adapter everywhere, pooler ... head" in told
    asked = json.loads(ask(claims, lora.replace("BASE", "ByStrategy"), "--output", "json").stdout)
    beside = [phase["trainableParameters"] for phase in asked["phases"]]
    assert {phase["adapterLearningRate"] for phase in asked["phases"]} == {0.001}
    asked = json.loads(ask(claims, lora.replace("BASE", "Frozen"), "--output", "json").stdout)
    alone = [phase["trainableParameters"] for phase in asked["phases"]]
    assert {phase["adapterLearningRate"] for phase in asked["phases"]} == {None}
    assert alone[0] < beside[0]
    assert alone[-1] == beside[0]


def test_the_table_says_what_trains_when(claims):
    asked = ask(claims, GRADUAL)
    assert asked.exit_code == 0, asked.output
    told = asked.output
    assert "words: GradualUnfreezing, 18 steps of 6 samples (36 in training, 6 steps an epoch)" in told
    assert "parameters in the blocks embeddings, layer.0, layer.1, layer.2, pooler, head" in told
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.splitlines() if line.startswith("│")]
    assert [row[:2] for row in rows] == [
        ["head", "head"],
        ["pooler", "layer.2 ... head"],
        ["layer.0", "layer.0, layer.2 ... head"],
    ]
    assert [row[5] for row in rows] == ["up to 6", "up to 6", "6"]
    assert rows[0][2] == f"{16 * 3 + 3}"
    assert not (claims / "results").exists()


def test_json_holds_the_same(claims):
    asked = ask(claims, "{type: BitFit}", "--output", "json")
    told = json.loads(asked.stdout)
    [phase] = told["phases"]
    assert told["parameters"] == sum(told["blocks"].values())
    assert phase["part"] == "BiasesAndNorms"
    assert phase["blocks"] == list(told["blocks"])
    assert 0 < phase["trainableParameters"] < told["parameters"] / 4
    assert phase["optimizerBytes"] == pytest.approx(12 * phase["trainableParameters"] / 2, abs=2)
    assert phase["learningRates"]["embeddings"] == 1e-3


@pytest.mark.slow
def test_phases_that_the_epochs_do_not_reach_are_told(claims):
    chain = "{type: GradualUnfreezing, gradualUnfreezing: {order: ChainThaw, stepsPerPhase: 4}}"
    assert "spec.training.epochs 3 ends before pooler, all: raise it" in ask(claims, chain).output
    assert json.loads(ask(claims, chain, "--output", "json").stdout)["unreached"] == ["pooler", "all"]
    assert "ends before" not in ask(claims, GRADUAL).output


def test_a_wrong_job_ends_as_it_would_in_a_run(claims):
    asked = ask(claims, "{type: PartialFineTuning, partialFineTuning: {blocks: [layer.7]}}")
    assert asked.exit_code == 2
    assert asked.stderr == (
        "Error: InvalidStrategy: spec.strategy.partialFineTuning.blocks: this model has no block layer.7 below its"
        " head; its blocks are embeddings, layer.0, layer.1, layer.2, pooler (the head needs no naming)\n"
    )
    asked = ask(claims, "{type: PartialFineTuning}")
    assert asked.exit_code == 2
    assert "type PartialFineTuning needs partialFineTuning.lastBlocks" in asked.stderr


def test_a_claim_without_a_folder_is_asked_for(claims):
    file = claims / "job.yaml"
    file.write_text(MANIFEST.replace("STRATEGY", "{type: BitFit}"))
    asked = CliRunner().invoke(phases, [str(file), "--claim", f"data={claims}/data"])
    assert asked.exit_code == 2
    assert "--claim models=DIR" in asked.stderr


def test_it_is_a_command_of_unfreeze():
    told = CliRunner().invoke(main, ["phases", "--help"]).output
    assert "--claims" in told
    assert "without training it" in told


@pytest.mark.parametrize(
    ("distribution", "optimizer", "expected"),
    [
        ({}, "AdamW", 1200),
        ({}, "SGD", 800),
        ({"numNodes": 4}, "AdamW", 1200),
        ({"numNodes": 4, "engine": "DeepSpeed", "deepSpeed": {"zeroStage": 0}}, "AdamW", 1200),
        ({"numNodes": 4, "engine": "DeepSpeed", "deepSpeed": {"zeroStage": 1}}, "AdamW", 600),
        ({"numNodes": 4, "engine": "FSDP"}, "AdamW", 300),
        ({"numNodes": 4, "engine": "DeepSpeed", "deepSpeed": {"zeroStage": 2}}, "AdamW", 300),
    ],
)
def test_memory_of_the_optimizer(distribution, optimizer, expected):
    job = make_job("/m", "/d.csv", distribution=distribution, training={"optimizer": optimizer, "batchSize": 4})
    assert optimizer_bytes(job, 100) == expected


def test_it_tells_what_computes_once_for_each_sample(claims):
    told = ask(claims, "{type: FeatureExtraction}").output
    assert "3.0 KiB, to pooler" in told
    assert "head: 5 of 6 blocks compute once for each sample, and are spared 2 passes over the training data" in told
    [phase] = json.loads(ask(claims, "{type: FeatureExtraction}", "--output", "json").stdout)["phases"]
    assert phase["cached"] == {
        "blocks": ["embeddings", "layer.0", "layer.1", "layer.2", "pooler"],
        "bytes": 48 * 16 * 4,
        "passes": 2.0,
    }
    [phase] = json.loads(ask(claims, "{type: FullFineTuning}", "--output", "json").stdout)["phases"]
    assert phase["cached"] is None


@pytest.mark.slow
def test_padding_is_told_with_what_would_be_left_of_it(claims):
    table = claims / "data" / "mixed.csv"
    rows = ["text,label", *(f"{'red ' * (1 + number * 7 % 40)},{'ab'[number % 2]}" for number in range(200))]
    table.write_text("\n".join(rows))
    file = claims / "mixed.yaml"
    text = MANIFEST.replace("STRATEGY", "{type: FullFineTuning}").replace("words.csv", "mixed.csv")
    found = {}
    for grouped in ("false", "true"):
        file.write_text(text.replace("batchSize: 6", f"batchSize: 6, groupByLength: {grouped}"))
        printed, asked = (
            CliRunner().invoke(phases, [str(file), "--claims", str(claims), *options]).stdout
            for options in ((), ("--output", "json"))
        )
        found[grouped] = json.loads(asked)["padding"]
        share = f"{found[grouped]['share']:.0%}".replace("%", " %")
        assert (f"{share} of what an epoch computes is padding" in printed) == (found[grouped]["share"] >= 0.1)
        assert ("with training.groupByLength" in printed) == (grouped == "false")
    assert found["true"]["grouped"] == found["true"]["share"] == found["false"]["grouped"] < found["false"]["share"] / 3
