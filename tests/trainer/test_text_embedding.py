"""Text embedding: what is read, what is lost and measured, and that a step is the same however it is divided."""

from __future__ import annotations

import json
import shutil
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from tests.trainer.engine_group import ENGINES, open_run
from tests.trainer.jobs import WORDS, bert_folder, make_job
from tests.trainer.reference import train_by_hand
from tests.trainer.whole_worker import ends_as_undisturbed
from unfreeze_trainer.commands.look import look
from unfreeze_trainer.engines import open_engine
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.feed import Feed
from unfreeze_trainer.libraries import sentence_encoder
from unfreeze_trainer.models import export
from unfreeze_trainer.models import pooled_layers as layers
from unfreeze_trainer.models.hook import StepHook
from unfreeze_trainer.models.plain import plain_outputs
from unfreeze_trainer.objectives.base import TARGETS
from unfreeze_trainer.objectives.contrast import LabelContrast, PairContrast
from unfreeze_trainer.objectives.retrieval import LabelRetrieval, PairRetrieval, _best
from unfreeze_trainer.objectives.similarity import CoSENT, CosineSimilarity
from unfreeze_trainer.objectives.targets import encoder
from unfreeze_trainer.tasks import open_task
from unfreeze_trainer.training.coupled import coupled_step
from unfreeze_trainer.training.loop import train

TASK = {"type": "TextEmbedding"}
SCORES = TASK | {"textEmbedding": {"annotation": "Scores"}}
RANKED = TASK | {"textEmbedding": {"annotation": "Scores", "loss": "CoSENT"}}
LABELS = TASK | {"textEmbedding": {"annotation": "Labels"}}
NEGATIVES = {"data": {"train": {"columns": {"negative": "negative"}}}}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """22 rows; anchors and positives repeat."""
    rows = "".join(
        f"{WORDS[n % 7]} {WORDS[n % 5]},{WORDS[n % 13]},{WORDS[n % 11]} {WORDS[n % 3]},{n % 7 / 7},{'abc'[n % 3]}\n"
        for n in range(26)
    )
    path = tmp_path_factory.mktemp("data") / "texts.csv"
    path.write_text(f"anchor,positive,negative,score,label\n{rows}")
    return path


def broken(tmp_path, text):
    path = tmp_path / "broken.csv"
    path.write_text(text)
    return path


# What is learned


def contrast(anchors, positives, ids, temperature=0.05):
    """Return the loss of pairs by its definition, one by one, on float64."""
    losses = []
    for row, (anchor, positive) in enumerate(ids):
        others = [
            n for n, (other, text) in enumerate(ids) if n == row or (other != anchor and text not in (anchor, positive))
        ]
        cosines = functional.cosine_similarity(anchors[row], positives[others], dim=-1) / temperature
        losses.append(cosines.logsumexp(dim=0) - cosines[others.index(row)])
    return torch.stack(losses)


def test_texts_that_belong_to_an_anchor_are_no_negatives_for_it():
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([[0, 1], [2, 3], [4, 1], [0, 5], [6, 2], [7, 8]])
    vectors = torch.randn(len(ids), 2, 8, dtype=torch.float64, generator=generator)
    objective = PairContrast(encoder("Relations")(ids.numpy(), "train"))
    expected = contrast(vectors[:, 0], vectors[:, 1], ids.tolist())
    torch.testing.assert_close(objective.losses(vectors, ids), expected)
    assert objective.losses(vectors[:1], ids[:1]).item() == pytest.approx(0, abs=1e-12), "nothing to tell it from"


@pytest.mark.slow
def test_losses_are_sentence_transformers_where_no_text_stands_twice():
    from sentence_transformers.sentence_transformer import losses

    vectors = torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(0))
    columns, nothing = list(vectors.unbind(dim=1)), torch.nn.Module()
    ids, scores = torch.arange(18).view(6, 3), torch.tensor([0.1, 0.9, 0.9, 0.3, -0.5, 0.0])
    learned = type("Learned", (), {"labels": []})()
    ranking = losses.MultipleNegativesRankingLoss(nothing)
    expected = ranking.compute_loss_from_embeddings(columns, None)
    torch.testing.assert_close(PairContrast(learned).losses(vectors, ids).mean(), expected)
    expected = losses.CoSENTLoss(nothing).compute_loss_from_embeddings(columns[:2], scores)
    torch.testing.assert_close(CoSENT(learned).losses(vectors[:, :2], scores[:, None].double())[0], expected)
    expected = losses.CosineSimilarityLoss(nothing).compute_loss_from_embeddings(columns[:2], scores)
    ours = CosineSimilarity(learned).loss(vectors[:, :2], {TARGETS: scores[:, None].double()})
    torch.testing.assert_close(ours.mean(), expected)


@pytest.mark.slow
def test_padding_has_no_loss_and_no_gradient(bert, table):
    for kind in (TASK, SCORES, RANKED, LABELS):
        task = open_task(make_job(bert, table, task=kind))
        assert task.repeats("train") == (kind is LABELS), "samples of several texts are not cached"
        module = task.build_model().module
        [empty] = task.batches("train", [[]])
        loss = task.loss(task.forward(module, empty), empty)
        assert loss.tolist() == [0]
        loss.sum().backward()
        assert all(float(p.grad.abs().sum()) == 0 for p in module.parameters() if p.grad is not None)
        assert task.tokens(empty) == 0
        state = task.metrics.state_of(3)
        task.metrics.update(state, task.forward(module, empty), empty)
        assert not state.any()
        if task.couples:
            assert not task.coupled(empty)[0].any()


def test_labels_pull_together_what_is_of_one():
    vectors = functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.2, 1.0]]), dim=-1)[:, None]
    learned = type("Learned", (), {"labels": ["a", "b"]})()
    near, far = (LabelContrast(learned).losses(vectors, torch.tensor(ids)) for ids in ([0, 0, 1, 1], [0, 1, 0, 1]))
    assert (near < far).all()
    alone = LabelContrast(learned).losses(vectors, torch.tensor([0, 0, 0, 1]))
    assert alone[3] == 0, "no other has its label"


def gradients(task, module, accumulate, size=9):
    """Return the gradients of a first step and its loss, computed by the loop's own way of coupled losses."""
    engine = open_engine(task.job)
    feed = Feed(task, seed=3, batch_size=size, accumulate=accumulate, rank=engine.rank, world_size=engine.world_size)
    engine.module = engine.model = module
    module.zero_grad()
    [(_, micros)] = list(feed.steps(0, 1))
    loss = sum(loss for _, loss in coupled_step(engine, task, StepHook(), micros, (1, 2)))
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}, float(loss)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [TASK, RANKED, LABELS], ids=["pairs", "CoSENT", "labels"])
def test_a_step_in_micro_batches_is_that_of_the_whole_batch(kind, bert, table):
    task = open_task(make_job(bert, table, task=kind, **(NEGATIVES if kind is TASK else {})))
    module = task.build_model().module.eval()
    whole, loss = gradients(task, module, accumulate=1)
    [(_, micros)] = list(Feed(task, seed=3, batch_size=9, accumulate=1, rank=0, world_size=1).steps(0, 1))
    [micro] = list(micros)
    module.zero_grad()
    losses = task.loss(task.forward(module, micro.tensors), micro.tensors)
    losses.mean().backward()
    assert losses.sum().item() == pytest.approx(loss, rel=1e-5)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(whole[name], parameter.grad, rtol=1e-4, atol=1e-6)
    for accumulate in (2, 4):
        parts, same = gradients(task, module, accumulate)
        assert same == pytest.approx(loss, rel=1e-5)
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_second_pass_of_a_micro_batch_has_the_dropout_of_the_first(bert, table):
    task = open_task(make_job(bert, table, task=TASK))
    seen = []
    forward = task.forward

    def noted(module, batch):
        outputs = forward(module, batch)
        seen.append(outputs.detach().clone())
        return outputs

    task.forward = noted
    gradients(task, task.build_model().module.train(), accumulate=3)
    first, second = seen[:3], seen[3:]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    seen.clear()
    gradients(task, task.build_model().module.eval(), accumulate=3)
    assert not torch.equal(seen[0], first[0]), "there is dropout"


def trained(job) -> dict[str, torch.Tensor]:
    """Train on this rank; return the weights on rank 0."""
    run = open_run(job, open_task(job))
    train(run)
    weights = {name: tensor.clone() for name, tensor in run.engine.weights(run.engine.shapes).items()}
    run.saver.close()
    return weights


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "engine"), [(TASK, "DDP"), (TASK, "FSDP"), (TASK, "ZeRO-3"), (RANKED, "DDP")])
def test_two_workers_with_uneven_shares_train_as_one_process_with_the_whole_batch(ranks, kind, engine, table, tmp_path):
    """20 samples in batches of 5, 3 and 2 a worker, each in two micro batches."""
    still = bert_folder(tmp_path / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    job = make_job(
        still,
        table,
        task=kind,
        training={"epochs": 2, "batchSize": 5, "gradientAccumulationSteps": 2, "optimizer": "SGD", "weightDecay": 0}
        | {"evaluate": {"everySteps": 100}},
        strategy={"learningRate": {"head": 5e-1, "backbone": 5e-2}},
        distribution={"numNodes": 2, **ENGINES[engine]},
        output={"destination": f"file://{tmp_path}/run"},
    )
    task = open_task(job)
    ours, _ = ranks.call(trained, job)
    start = {name: tensor.detach().clone() for name, tensor in task.build_model().module.named_parameters()}
    wanted = train_by_hand(job, task, ranks=2)
    assert max((ours[name] - wanted[name]).abs().max().item() for name in ours) < 1e-5
    assert max((ours[name] - start[name]).abs().max().item() for name in ours) > 1e-2


# What is read


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (TASK, "anchor,positive\na,b\n,c\nd,e\n", "no text in column 'anchor' of row 2; fill in or remove it"),
        (TASK, "anchor,positive\na,b\nc,\nd,e\n", "no text in column 'positive' of row 2; fill in or remove it"),
        (TASK, "anchor,answer\na,b\nc,d\n", "no column 'positive'"),
        (TASK, "anchor,positive\na,x\nb,x\nc,x\nd,x\n", "have one text alone that belongs to others"),
        (SCORES, "anchor,positive,score\na,b,0.5\nc,d,high\n", "row 2, column 'score': 'high' is no number"),
        (SCORES, "anchor,positive,score\na,b,0.5\nc,d,5\ne,f,-3\n", "column 'score', rows 2, 3: 5 is no cosine"),
        (SCORES, "anchor,positive,score\na,b,1\nc,d,1\ne,f,1\n", r"Name another one in spec\.data\.train\.columns"),
        (LABELS, "anchor,label\na,x\nb,x\nc,x\nd,x\n", "all 4 texts have the label 'x'"),
        (LABELS, "anchor,label\na,x\nb,\n", "no label in column 'label' of row 2"),
    ],
)
def test_what_cannot_be_read_is_named(kind, text, says, bert, tmp_path):
    job = make_job(bert, broken(tmp_path, text), task=kind, training={"batchSize": 1})
    with pytest.raises(JobError, match=says):
        open_task(job)
    with pytest.raises(JobError, match=says):
        look(job)


@pytest.mark.parametrize("kind", [TASK, LABELS, RANKED])
def test_a_step_of_one_sample_is_refused(kind, bert, tmp_path):
    lines = [f"{WORDS[n]},{WORDS[n + 1]},{n % 2},{n}\n" for n in range(12)]
    table = broken(tmp_path, "anchor,positive,label,score\n" + "".join(lines))
    with pytest.raises(JobError, match=r"^spec\.training\.batchSize: a step of one sample has nothing"):
        open_task(make_job(bert, table, task=kind, training={"batchSize": 1}))


def test_scores_of_any_scale_are_ranked(bert, tmp_path):
    text = "anchor,positive,score\n" + "".join(f"{WORDS[n]},{WORDS[n + 1]},{n}\n" for n in range(12))
    assert open_task(make_job(bert, broken(tmp_path, text), task=RANKED)).splits == {"train": 9, "validation": 3}


def test_a_row_without_a_text_is_left_out_where_it_is_to_be(bert, tmp_path):
    text = "anchor,positive\n" + "".join(f"{WORDS[n]},{'' if n == 3 else WORDS[n + 1]}\n" for n in range(12))
    job = make_job(bert, broken(tmp_path, text), task=TASK, data={"onError": "Skip"})
    task = open_task(job)
    assert task.left_out == {"train": 1}
    assert sum(task.splits.values()) == 11


def test_a_metric_that_has_no_value_is_refused_before_anything_is_trained(bert, table, tmp_path):
    job = make_job(bert, table, task=RANKED, training={"metric": "loss"})
    with pytest.raises(
        JobError, match=r"training\.metric loss has no value for spec\.data\.validation: CoSENT's is one of a"
    ):
        open_task(job)
    held_out = tmp_path / "held_out.csv"
    held_out.write_text("anchor,label\na,a\nb,b\nc,c\n")
    data = {"validation": {"source": f"file://{held_out}", "fraction": None}}
    with pytest.raises(JobError, match="no two of its texts have the same label; hold out more"):
        open_task(make_job(bert, table, task=LABELS, data=data))


def test_negatives_are_read_of_the_training_data_alone(bert, table, tmp_path):
    held_out = tmp_path / "held_out.csv"
    held_out.write_text("anchor,positive\n" + "".join(f"{WORDS[n]},{WORDS[n + 1]}\n" for n in range(5)))
    data = {"validation": {"source": f"file://{held_out}", "fraction": None}}
    job = make_job(bert, table, task=TASK, data=data | NEGATIVES["data"])
    task = open_task(job)
    assert {name: split.targets.values.shape[1] for name, split in task._splits.items()} == {
        "train": 3,
        "validation": 2,
    }
    assert look(job).startswith("samples: 26 in train, 5 in validation")


def test_texts_of_a_sample_stand_one_after_the_other(bert, table):
    task = open_task(make_job(bert, table, task=TASK, **NEGATIVES))
    [batch] = task.batches("train", [[4, 0]])
    split, tokenizer = task._splits["train"], task.modality.tokenizer
    rows = [split.source.inputs[int(split.rows[index])].as_py() for index in (4, 0)]
    texts = [row[name] for name in ("anchor", "positive", "negative") for row in rows]
    wanted = tokenizer(texts, padding="max_length", max_length=8)["input_ids"]
    assert batch["input_ids"].tolist() == wanted
    assert batch[TARGETS].shape == (2, 3)
    module = task.build_model().module.eval()
    vectors = task.forward(module, batch)
    assert vectors.shape == (2, 3, 16)
    torch.testing.assert_close(vectors[1, 2], task.compared(module, batch)[5])
    assert task.tokens(batch) == int(batch["attention_mask"].sum())
    assert len(task.modality.samples(split, 4, batch)) == 12


def test_what_the_base_has_beside_its_pooling_is_refused(bert, table, tmp_path):
    shutil.copytree(bert, folder := tmp_path / "dense")
    parts = [
        {"idx": 0, "path": "", "type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Dense")
    ]
    (folder / "modules.json").write_text(json.dumps(parts))
    with pytest.raises(JobError, match=r"modules\.json names Dense beside Transformer, Pooling and Normalize"):
        open_task(make_job(folder, table, task=TASK))


# What is measured


def evaluated(task, module, world):
    """Return the metrics of the validation split, dealt out to so many workers."""
    state, rows = task.metrics.state_of(task.splits["validation"]), []
    for rank in range(world):
        feed = Feed(task, seed=0, batch_size=4, accumulate=1, rank=rank, world_size=world)
        for batch in feed.evaluation("validation"):
            outputs = task.forward(module, batch)
            task.metrics.update(state, outputs, batch)
            rows += [task.metrics.rows(outputs, batch)] if task.metrics.row_width else []
    return task.metrics.compute(state, torch.cat(rows) if rows else None)


def texts_of(task, *names):
    split = task._splits["validation"]
    rows = [split.source.inputs[int(row)].as_py() for row in split.rows]
    return [[row[name] for row in rows] for name in names] if names else rows


@pytest.mark.slow
@torch.no_grad()
def test_uneven_shards_are_measured_as_sentence_transformers_measures_the_whole(bert, table, tmp_path):
    """13 samples, dealt out as an evaluation deals them out; the evaluators get the same vectors."""
    from sentence_transformers.sentence_transformer import evaluation

    held_out = {"data": {"validation": {"fraction": 0.5}}}
    task = open_task(make_job(bert, table, task=TASK, **held_out))
    assert task.splits["validation"] == 13
    module = task.build_model().module.eval()

    class Model:
        """What an evaluator asks of a model."""

        similarity_fn_name = "cosine"
        model_card_data = None

        @staticmethod
        def encode(texts, **_):
            inputs = task.modality.tokenizer(list(texts), padding=True, return_tensors="pt")
            return task.library.forward(module, dict(inputs))

        encode_query = encode_document = encode

        @staticmethod
        def similarity(one, other):
            return functional.normalize(one, dim=-1) @ functional.normalize(other, dim=-1).T

    def retrieved(queries, corpus, relevant):
        evaluator = evaluation.InformationRetrievalEvaluator(
            queries, corpus, relevant, accuracy_at_k=[1], score_functions={"cosine": Model.similarity}
        )
        scores = evaluator.compute_all_metrics(Model)["cosine"]
        names = {"ndcgAt10": ("ndcg@k", 10), "mrrAt10": ("mrr@k", 10), "recallAt1": ("recall@k", 1)}
        names |= {"recallAt10": ("recall@k", 10)}
        return {name: scores[key][k] for name, (key, k) in names.items()}

    anchors, positives = texts_of(task, "anchor", "positive")
    assert len(set(positives)) < len(positives), "there are equal ones"
    ids = {text: f"{place:04}" for place, text in enumerate(dict.fromkeys(positives))}
    relevant = {anchor: {ids[p] for a, p in zip(anchors, positives, strict=True) if a == anchor} for anchor in anchors}
    expected = retrieved(dict(zip(anchors, anchors, strict=True)), {i: text for text, i in ids.items()}, relevant)
    for world in (1, 2, 3):
        found = evaluated(task, module, world)
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-15)
    task = open_task(make_job(bert, table, task=SCORES, **held_out))
    module = task.build_model().module.eval()
    scores = task._splits["validation"].targets.values[:, 0].tolist()
    one, other = (Model.encode(texts) for texts in texts_of(task, "anchor", "positive"))
    for world in (1, 2, 3):
        found = evaluated(task, module, world)
        cosines = functional.cosine_similarity(one, other).double().numpy()
        assert found["spearman"] == pytest.approx(stats.spearmanr(scores, cosines)[0], rel=1e-12)
        assert found["pearson"] == pytest.approx(stats.pearsonr(scores, cosines)[0], rel=1e-6)


def test_a_text_looks_for_the_others_of_its_label():
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    vectors = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1.0], [0.1, 0.9], [1.0, 0.05], [0.5, 0.5]])
    metrics = LabelRetrieval(0.05)
    metrics.set_width(2)
    batch = {TARGETS: labels, "samples": torch.arange(6)}
    found = metrics.compute(metrics.new_state(), metrics.rows(vectors[:, None], batch))
    # The nearest of each: 4, 4, 3, 2, 0; the last one's label has no other.
    assert found["recallAt1"] == pytest.approx(np.mean([0, 0, 1 / 2, 1 / 2, 0]))
    assert found["recallAt10"] == 1
    assert found["mrrAt10"] == pytest.approx(np.mean([1 / 2, 1 / 2, 1, 1, 1 / 4]))


def test_of_equal_scores_the_first_is_found():
    scores = torch.tensor([[0.5, 0.7, 0.5, 0.5, 0.9], [0.1] * 5])
    assert _best(scores, 3).tolist() == [[4, 1, 0], [0, 1, 2]]


def test_numbers_of_samples_are_exact_in_rows_however_large():
    metrics = PairRetrieval(0.05)
    metrics.set_width(2)
    ids = torch.tensor([[40_000_001, 40_000_003], [40_000_002, 40_000_004]])
    vectors = torch.tensor([[[1.0, 0], [0, 1.0]], [[0, 1.0], [1.0, 0]]])
    found = metrics.compute(
        metrics.new_state(), metrics.rows(vectors, {TARGETS: ids, "samples": torch.tensor([30_000_001, 30_000_000])})
    )
    assert found["recallAt1"] == 0
    assert found["mrrAt10"] == 0.5
    assert metrics.compute(metrics.new_state(), torch.zeros(0, metrics.row_width)) == {}


def test_cosent_is_the_sum_over_pairs_in_the_wrong_order():
    generator = torch.Generator().manual_seed(0)
    vectors, scores = torch.randn(7, 2, 5, generator=generator), torch.tensor([[0.1], [3], [3], [2], [9], [0], [1]])
    learned = type("Learned", (), {"labels": []})()
    losses = CoSENT(learned, temperature=0.1).losses(vectors, scores.double())
    cosines = functional.cosine_similarity(vectors[:, 0], vectors[:, 1]).tolist()
    gaps = [(cosines[i] - cosines[j]) / 0.1 for i in range(7) for j in range(7) if scores[i, 0] < scores[j, 0]]
    assert losses.tolist() == pytest.approx([np.log1p(np.exp(gaps).sum())] * 7, rel=1e-5)


# What is written


@pytest.fixture(scope="module")
def bases(bert, tmp_path_factory):
    """A plain folder, and one of sentence-transformers that pools by the greatest values and makes vectors as long as 1."""
    shutil.copytree(bert, folder := tmp_path_factory.mktemp("encoder") / "max")
    layers._write_modules(folder, 16, ["max"], (layers.NORMALIZE, "Normalize"))
    (folder / layers.NORMALIZE).mkdir()
    return {"plain": bert, "sentence-transformers": folder}


@pytest.mark.slow
@pytest.mark.parametrize("base", ["plain", "sentence-transformers"])
@pytest.mark.parametrize("kind", ["Model", "Adapter"])
def test_an_export_pools_as_its_base_and_loads_with_transformers_alone_too(base, kind, bases, table, tmp_path):
    adapter = {"adapter": {"type": "LoRA"}, "output": {"exports": ["Adapter"]}} if kind == "Adapter" else {}
    task = open_task(make_job(bases[base], table, task=TASK, **adapter))
    module = task.build_model().module
    task.export(module, folder := tmp_path / "export", kind)
    with patch.object(export, "reload", plain_outputs):
        task.verify_export(folder, kind, module)
        with patch.object(sentence_encoder.importlib.util, "find_spec", lambda _: None):
            task.verify_export(folder, kind, module)
    batch, texts = task.first_samples()
    vectors = task.compared(module.eval(), batch)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(len(texts))) == (base != "plain")
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: sentence-similarity" in card
    assert ('model = SentenceTransformer(".")' in card) == (kind == "Model")
    described = json.loads((folder / "pooled_config.json").read_text())
    assert described == {"pooling": ["mean" if base == "plain" else "max"], "normalize": base != "plain"}
    if kind == "Model":  # what goes on from it pools as it does
        assert {"modules.json", "1_Pooling/config.json"} <= open_task(make_job(folder, table, task=TASK)).pins["base"][
            "files"
        ].keys()
        classes = open_task(make_job(folder, table, data={"train": {"columns": {"text": "anchor"}}}))
        assert classes.library._pooling == tuple(described["pooling"])
        assert open_task(make_job(folder, table, task=TASK)).library._normalize == described["normalize"]


@pytest.mark.slow
def test_a_killed_run_of_two_workers_ends_as_the_undisturbed_one(ranks, bert, table, tmp_path):
    def job_in(name: str):
        return make_job(
            bert,
            table,
            task=TASK,
            data={"test": {"fraction": 0.2}},
            strategy={"type": "GradualUnfreezing", "gradualUnfreezing": {"stepsPerPhase": 3, "blocksPerPhase": 2}},
            training={"epochs": 3, "batchSize": 7, "gradientAccumulationSteps": 2, "checkpoint": {"everySteps": 2}},
            distribution={"numNodes": 2},
            output={"destination": f"file://{tmp_path}/{name}"},
        )

    one = ends_as_undisturbed(job_in, tmp_path)
    assert set(one["results"]["test"]) == {"ndcgAt10", "mrrAt10", "recallAt1", "recallAt10", "loss"}
    assert [found["answer"] in ("Yes", "No") for found in one["decisions"] if found["type"] == "BetterThanBase"] == [
        True
    ]
