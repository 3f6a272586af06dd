"""Training: every architecture learns, goes on from a checkpoint to the bit, and is exported; the rest is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import onnxsmith  # noqa: E402
from onnxsmith.errors import BadInput, BadUsage, CheckFailed  # noqa: E402
from onnxsmith.models.recipes import own_text  # noqa: E402
from onnxsmith.models.recipes.own_text import OwnText  # noqa: E402
from onnxsmith.models.recipes.translation import Translation  # noqa: E402
from onnxsmith.models.training import Recipe, Result, build_problem, read_recipe, train  # noqa: E402
from onnxsmith.models.training.order import SeededBatches  # noqa: E402
from onnxsmith.models.training.schedules import Schedule  # noqa: E402
from onnxsmith.models.training.state import FILE, start_from  # noqa: E402
from tests.command import snapshot  # noqa: E402

PAIRS = "[problem]\nname = 'translation'\npairs = 200\nheld_out = 8\n"
TEXT = "validate_every = 3\n[problem]\nname = 'own-text'\nvocabulary = 300\nwindow = 32\nheld_out = 100\n"
WORDS = "[problem]\nname = 'masked-words'\nstories = 20\nheld_out = 8\n"
BART_SIDE = "{0}_layers = 1\n{0}_attention_heads = 2\n{0}_ffn_dim = 64\n"
LAYER = "intermediate_size = 64\nnum_hidden_layers = 1\nnum_attention_heads = 2\nmax_position_embeddings = 64\n"
# The problem, and the [model] without its model_type.
TINY = {
    "transformer": (PAIRS, "d_model = 32\nlayers = 1\nheads = 2\nd_ff = 64\nlength = 32\n"),
    "bart": (
        PAIRS,
        "d_model = 32\nmax_position_embeddings = 32\n" + "".join(map(BART_SIDE.format, ("encoder", "decoder"))),
    ),
    "t5": (
        PAIRS,
        "d_model = 32\nd_kv = 16\nd_ff = 64\nnum_layers = 1\nnum_heads = 2\nrelative_attention_num_buckets = 8\n",
    ),
    "bert": (WORDS, "architectures = ['BertForMaskedLM']\nhidden_size = 32\ntype_vocab_size = 2\n" + LAYER),
    "gpt2": (TEXT, "architectures = ['GPT2LMHeadModel']\nn_embd = 32\nn_layer = 1\nn_head = 2\nn_positions = 64\n"),
    "llama": (TEXT, "architectures = ['LlamaForCausalLM']\nhidden_size = 32\n" + LAYER),
}
ARCHITECTURE = {"gpt2": "gpt"}
THEIRS = {
    "bart": "BartForConditionalGeneration",
    "t5": "T5ForConditionalGeneration",
    "bert": "BertForMaskedLM",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
}
STEPS, STOPPED = 12, 7


def tiny(folder: Path, kind: str = "transformer", settings: str = "", tables: str = "") -> Recipe:
    """A recipe of a few steps, with more ``settings`` at its top and ``tables`` at its end."""
    problem, model = TINY[kind]
    path = folder / "tiny.toml"
    head = f"steps = {STEPS}\nbatch = 8\ncheckpoint_every = 5\n{settings}\n"
    path.write_text(f"{head}{problem}[model]\nmodel_type = '{kind}'\n{model}[optimizer]\nlr = 0.01\n{tables}")
    return read_recipe(path)


def trained(recipe: Recipe, folder: Path, *, resume: bool = False, stop: int = 0) -> Result:
    """The result of the only run, or Ctrl-C after a step."""

    def watch(done: int, total: int, what: str) -> None:
        if done == stop:
            raise KeyboardInterrupt

    (result,) = train(recipe, folder, resume=resume, watch=watch)
    return result


@pytest.fixture(scope="module", params=list(TINY))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Trained without a stop."""
    folder = tmp_path_factory.mktemp(kind)
    return trained(tiny(folder, kind), folder / "whole")


class TestEveryArchitecture:
    def test_the_loss_falls(self, whole: Result) -> None:
        assert len(whole.losses) == STEPS
        assert np.mean(whole.losses[-3:]) < 0.95 * np.mean(whole.losses[:3])

    def test_a_stopped_training_ends_the_same_to_the_bit(self, kind: str, whole: Result, tmp_path: Path) -> None:
        recipe = tiny(tmp_path, kind)
        with pytest.raises(KeyboardInterrupt):
            trained(recipe, tmp_path / "parts", stop=STOPPED)
        assert len(load_file(tmp_path / "parts" / FILE)["losses"]) == 5
        resumed = trained(recipe, tmp_path / "parts", resume=True)
        assert (resumed.losses, resumed.quality) == (whole.losses, whole.quality)
        first, second = (load_file(result.folder / FILE) for result in (whole, resumed))
        assert first.keys() == second.keys() and any(name.startswith("optimizer.") for name in first)
        assert [name for name in first if name != "seconds" and not torch.equal(first[name], second[name])] == []

    def test_what_it_learned_is_exported(self, kind: str, whole: Result, tmp_path: Path) -> None:
        problem = build_problem(tiny(tmp_path, kind).runs[0])
        start_from(problem.module, whole.folder / FILE, whole.run.digest)
        architecture, model = ARCHITECTURE.get(kind, kind), tmp_path / "model"
        onnxsmith.export(architecture, model, checkpoint=whole.folder, exporter="torchscript")
        found, wanted = (problem.answers(run) for run in (onnxsmith.load(model).run, problem.runner()))
        assert found == pytest.approx(wanted) if isinstance(wanted[0], float) else found == wanted
        assert problem.quality(found) == pytest.approx(whole.quality)

    def test_transformers_reads_it(self, kind: str, whole: Result) -> None:
        if kind not in THEIRS:
            pytest.skip("transformers has no such model")
        model, found = getattr(transformers, THEIRS[kind]).from_pretrained(whole.folder, output_loading_info=True)
        assert not any(found[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(whole.folder)
        text = "the cat sees a dog"
        assert tokenizer(text).input_ids == Tokenizer.from_file(str(whole.folder / "tokenizer.json")).encode(text).ids
        assert tokenizer.eos_token_id == model.config.eos_token_id


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("settings", "tables", "mentions"),
        [
            ("stepss = 3", "", "unknown key 'stepss'; did you mean 'steps'"),
            ("seed = -1", "", "seed = -1; a whole number of 0 or more"),
            ("", "lrs = 1e-3", "[optimizer] has an unknown key 'lrs'; did you mean 'lr'"),
            ("", "clip = nan", "clip = nan"),
            ("", "[schedule]\nkind = 'inverse-square'", "no schedule 'inverse-square'; did you mean 'inverse-sqrt'"),
            ("", "[runs]\na = 1", "a table for each run"),
            ("", "[runs.a]\nstart = 'b'\n[runs.b]", "run a has start = 'b'; a run that stands before it"),
            ("", "[runs.a]\nproblem = 3", "problem = 3; a table"),
            ("", "[runs.a]\nstart = ['b']", "run a has start = ['b']"),
            ("", "beta2 = 1", "both must be less than 1"),
            ("", "[runs.'../a']", "cannot be the name of a folder"),
            ("steps = 1", "", "not a readable TOML file"),
        ],
    )
    def test_recipes(self, settings: str, tables: str, mentions: str, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as error:
            tiny(tmp_path, settings=settings, tables=tables)
        assert mentions in str(error.value) and "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("tables", "mentions"),
        [
            ("[runs.a]\nproblem.name = 'translate'", "no problem 'translate'; did you mean 'translation'"),
            ("[runs.a]\nproblem.pears = 1", "unknown key 'pears'; did you mean 'pairs'"),
            ("[runs.a]\nmodel.d_modle = 16", "unknown key 'd_modle'; did you mean 'd_model'"),
            ("[runs.a]\nmodel.d_model = 'x'", "d_model = 'x'; a positive integer"),
            ("[runs.a]\nmodel.model_type = 'bird'", "model_type 'bird'"),
            ("[runs.a]\nmodel.vocab_size = 3", "vocab_size, which comes from the data"),
            ("[runs.a]\nproblem.name = 3", "no problem '3'"),
        ],
    )
    def test_problems_and_models(self, tables: str, mentions: str, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as error:
            build_problem(tiny(tmp_path, tables=tables).runs[0])
        assert mentions in str(error.value) and "\n" not in str(error.value)

    @pytest.mark.parametrize("kind", TINY)
    def test_a_key_that_the_family_does_not_read(self, kind: str, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="unknown key 'dropuot'"):
            build_problem(tiny(tmp_path, kind, tables="[runs.a]\nmodel.dropuot = 16").runs[0])

    @pytest.mark.parametrize(("kind", "key"), [("bart", "max_position_embeddings"), ("gpt2", "n_positions")])
    def test_texts_that_the_model_has_no_positions_for(self, kind: str, key: str, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="has 9 positions, and the problem has texts of"):
            build_problem(tiny(tmp_path, kind, tables=f"[runs.a]\nmodel.{key} = 9").runs[0])

    def test_recipes_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="no recipe 'translatoin'; did you mean 'translation'"):
            read_recipe("translatoin")
        with pytest.raises(BadInput, match="not a readable TOML file"):
            read_recipe(tmp_path / "none.toml")

    def test_a_batch_of_more_than_there_is(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="batch = 300 and 200 examples"):
            trained(tiny(tmp_path, tables="[runs.a]\nbatch = 300"), tmp_path / "out")


class TestCheckpointsAreKept:
    def test_a_loss_that_is_not_finite_stops(self, tmp_path: Path) -> None:
        recipe = tiny(tmp_path, tables="clip = 0\n[runs.a]\noptimizer.lr = 1e30")
        with pytest.raises(
            CheckFailed, match=r"step \d+: .* try a lower lr, a longer warmup or clipping \(lr = 1e\+30"
        ):
            trained(recipe, tmp_path / "out")

    def test_the_one_before_a_loss_that_is_not_finite(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        steps = iter(range(STEPS))
        real = Translation.loss
        monkeypatch.setattr(Translation, "loss", lambda *args: real(*args) * (torch.nan if next(steps) == 6 else 1))
        with pytest.raises(CheckFailed, match="step 7: the loss is nan; .*; the checkpoint of step 5 stays"):
            trained(tiny(tmp_path), tmp_path / "out")
        monkeypatch.undo()
        assert len(trained(tiny(tmp_path), tmp_path / "out", resume=True).losses) == STEPS

    def test_another_recipe_does_not_touch_it(self, tmp_path: Path) -> None:
        trained(tiny(tmp_path), tmp_path / "out")
        before = snapshot(tmp_path / "out")
        with pytest.raises(BadUsage, match="not empty; --resume"):
            trained(tiny(tmp_path), tmp_path / "out")
        with pytest.raises(BadInput, match="of another recipe, or of other settings"):
            trained(tiny(tmp_path, settings="seed = 3"), tmp_path / "out", resume=True)
        assert snapshot(tmp_path / "out") == before

    def test_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / FILE).write_bytes(b"nothing")
        with pytest.raises(BadInput, match="no checkpoint that can be read"):
            trained(tiny(tmp_path), tmp_path / "out", resume=True)

    def test_a_finished_run_is_not_trained_again(self, tmp_path: Path) -> None:
        first = trained(tiny(tmp_path), tmp_path / "out")
        assert trained(tiny(tmp_path), tmp_path / "out", resume=True, stop=1) == first


class TestValidation:
    def test_the_model_is_that_of_the_best_step(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tiny(tmp_path, "gpt2")
        results = []
        for steps in (STEPS, 6):
            found = iter([3.0, 1.0, 2.0, 4.0])
            monkeypatch.setattr(OwnText, "validation", lambda _, found=found: next(found))
            results.append(trained(read_recipe(tmp_path / "tiny.toml", steps=steps), tmp_path / str(steps)))
        assert [result.step for result in results] == [6, 6] and len(results[0].losses) == STEPS
        for name in ("model.safetensors", FILE):  # what is exported, and what other runs start from
            longer, shorter = (load_file(result.folder / name) for result in results)
            weights = [key for key in longer if name != FILE or key.startswith("model.")]
            assert weights and all(torch.equal(longer[key], shorter[key]) for key in weights)

    def test_on_data_that_is_not_trained_on_or_held_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        numbers = np.random.default_rng(0)  # no two files of which begin or go on alike
        texts = tuple(" ".join(map(str, numbers.integers(1 << 30, size=60))) for _ in range(200))
        monkeypatch.setattr(own_text, "own_texts", lambda: texts)
        problem: Any = build_problem(tiny(tmp_path, "gpt2").runs[0])
        windows = [{tuple(window) for window in some} for some in (problem.validating, problem.held_out)]
        assert all(windows) and not windows[0] & windows[1]
        first, *rest = problem.examples
        stream = torch.cat([first, *(one[-problem.settings.stride :] for one in rest)]).tolist()
        learned = {tuple(stream[i : i + len(first)]) for i in range(len(stream))}
        assert not any(some & learned for some in windows)

    def test_without_data_for_it(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="translation has no data to validate on"):
            trained(tiny(tmp_path, settings="validate_every = 2"), tmp_path / "out")


class TestRunsThatStartFromOthers:
    def test_they_begin_with_its_weights(self, tmp_path: Path) -> None:
        tables = "[runs.first]\n[runs.second]\nstart = 'first'\noptimizer.lr = 0.0"
        first, second = train(tiny(tmp_path, tables=tables), tmp_path / "out")
        assert second.folder == tmp_path / "out" / "second" and second.quality == first.quality
        ours, theirs = (load_file(result.folder / "model.safetensors") for result in (first, second))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_another_size(self, tmp_path: Path) -> None:
        tables = "[runs.first]\n[runs.second]\nstart = 'first'\nmodel.d_model = 16"
        with pytest.raises(BadInput, match="start from a run of the same sizes"):
            list(train(tiny(tmp_path, tables=tables), tmp_path / "out"))


class TestSchedules:
    @pytest.mark.parametrize(
        ("kind", "warmup", "factors"),
        [
            ("constant", 2, [0.5, 1, 1, 1, 1]),
            ("linear", 2, [0.5, 1, 0.75, 0.5, 0.25]),
            ("linear", 0, [1, 0.8, 0.6, 0.4, 0.2]),
            ("inverse-sqrt", 2, [0.5, 1, (2 / 3) ** 0.5, 0.5**0.5, 0.4**0.5]),
            ("inverse-sqrt", 0, [1, 0.5**0.5, (1 / 3) ** 0.5, 0.5, 0.2**0.5]),
        ],
    )
    def test_factors(self, kind: str, warmup: int, factors: list[float]) -> None:
        schedule = Schedule(kind, warmup)
        assert [schedule.factor(step, 5) for step in range(1, 6)] == pytest.approx(factors)

    def test_the_papers_rate(self) -> None:
        """Equation 3: d**-0.5 * min(step**-0.5, step * warmup**-1.5), whose largest value is (d * warmup)**-0.5."""
        schedule, peak = Schedule("inverse-sqrt", 4000), (512 * 4000) ** -0.5
        for step in (1, 1000, 4000, 16000, 100000):
            wanted = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
            assert peak * schedule.factor(step, 100000) == pytest.approx(wanted)

    def test_every_epoch_has_all_examples_in_another_order(self) -> None:
        batches = list(SeededBatches(10, 5, 1, 0, 4))
        first, second = batches[0] + batches[1], batches[2] + batches[3]
        assert sorted(first) == sorted(second) == list(range(10)) and first != second
        assert list(SeededBatches(10, 5, 1, 3, 4)) == batches[3:]


def test_the_recipe_of_the_document_can_be_read(tmp_path: Path) -> None:
    document = Path(__file__).parent.parent / "docs" / "training.md"
    (recipe,) = re.findall(r"```toml\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mine.toml").write_text(recipe)
    first, second = read_recipe(tmp_path / "mine.toml").runs
    assert second.start == first and second.optimizer.lr == 1e-4 and first.schedule == Schedule("inverse-sqrt", 300)
