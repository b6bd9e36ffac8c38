"""The whole lab: all parts, a stop and a second start, and refused input."""

import dataclasses
import shutil

import msgspec
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from pitfalls.experiment.config import CONF, ROOT
from pitfalls.language import lab_figures, lab_tables, writing
from pitfalls.language.beliefs import HOLDS, NOT_MEASURED, REFUTED, UNDECIDED, Belief, judge_beliefs, read_beliefs
from pitfalls.language.estimates import mean, share
from pitfalls.language.generation import RULES, Rule
from pitfalls.language.lab import Lab, origin_of, rounded
from pitfalls.language.lab_parts import GreedyTexts
from pitfalls.language.lab_record import Estimate, LabRecord, LabSource
from pitfalls.language.lab_settings import beginning, natural_texts, prompt_tokens, read_lab_plan
from pitfalls.language.lab_summary import summarise
from pitfalls.language.reading import padded
from pitfalls.language.writing import write, write_and_read
from pitfalls.report import page
from pitfalls.runs.files import read_json
from pitfalls.runs.records import Hardware
from pitfalls.schemas import ConfigError, PitfallsError
from tests.language.conftest import PROMPTS, plan

BELIEFS = CONF / "degeneration" / "claims.yaml"


ENVIRONMENT = {"commit": None, "dirty": None, "versions": {}, "hardware": Hardware("x", 2, "Linux")}


def words(ids):
    return [str(i) for i in ids]


def whole_record(lm, tokenizer, folder, **changes):
    lab = Lab(lm, tokenizer, plan(**changes), folder, log=lambda line: None)
    parts = lab.run()
    return record_of(lab, parts)


def record_of(lab, parts):
    origin = origin_of(lab, LabSource("tiny", "folder", None), ENVIRONMENT)
    return summarise(msgspec.structs.replace(origin, wall_s=1.0), parts, lab.plan, words)


@pytest.mark.parametrize(("kind", "has_heads", "loops"), [("gpt2", True, True), ("llama", True, False), ("mamba", False, True)])
def test_a_lab_from_end_to_end(tiny, tmp_path, kind, has_heads, loops):
    """A lab makes all parts, tables, figures and the page, also for a model without heads and for one that never loops."""
    record = whole_record(*tiny(kind), tmp_path)
    judgements = judge_beliefs(read_beliefs(BELIEFS), record.measures)
    verdicts = {j.belief.measure: j.verdict for j in judgements}
    assert (verdicts["heads_drive"] != NOT_MEASURED) == (has_heads and loops)
    assert (verdicts["loop_entropy_ratio"] != NOT_MEASURED) == loops
    assert verdicts["greedy_loops"] != NOT_MEASURED
    tables = lab_tables.write(record, judgements, tmp_path)
    lab_figures.write(record, tmp_path)
    assert ("heads" in tables) == has_heads
    assert {path.stem for path in tmp_path.glob("*.svg")} == {"copies", "context", "map"}
    assert record.strips[0].name in page.render([], tables, [], (record, judgements))
    for row in record.map:
        assert row.loop + row.text + row.noise == pytest.approx(1)
    assert msgspec.json.decode(msgspec.json.encode(record), type=LabRecord) == record, "who writes a record reads it"


def test_a_stopped_lab_goes_on_and_measures_nothing_twice(tiny, tmp_path, monkeypatch):
    """Guards against lost work after Ctrl-C: kept parts are not measured again, and the record is the same byte for byte."""
    lm, tokenizer = tiny("gpt2")
    once = whole_record(lm, tokenizer, tmp_path / "once")
    kept = Lab._kept
    n_measured = 0

    def stops(self, step, place):
        nonlocal n_measured
        if n_measured == 9:
            raise KeyboardInterrupt
        n_measured += 1
        return kept(self, step, place)

    monkeypatch.setattr(Lab, "_kept", stops)
    with pytest.raises(KeyboardInterrupt):
        whole_record(lm, tokenizer, tmp_path / "twice")
    monkeypatch.setattr(Lab, "_kept", kept)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "twice" / "parts").iterdir()}
    assert len(files) == 9
    again = whole_record(lm, tokenizer, tmp_path / "twice")
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert msgspec.json.encode(once) == msgspec.json.encode(again)


def test_a_model_without_an_end_is_told_and_bans_nothing(tiny, tmp_path):
    """The message is one line. Measurements of the end of text are left out."""
    lm, tokenizer = tiny("gpt2")
    lm.generation_config.eos_token_id = None
    lines = []
    lab = Lab(lm, tokenizer, plan(), tmp_path, log=lines.append)
    parts = lab.run()
    assert lines[0] == "GPT2LMHeadModel has no end-of-text token: nothing is banned, and what asks for one is left out"
    assert GreedyTexts("ban") not in parts
    measures = record_of(lab, parts).measures
    assert "end_near_onset" not in measures
    assert {"greedy_loops", "loop_entropy_ratio"} <= set(measures)


def test_a_prompt_that_does_not_fit_is_told_first(tiny, tmp_path):
    """The message comes before anything is read. It names the longest prompt, the tokens needed, and the model's limit."""
    lm, tokenizer = tiny("gpt2")
    with pytest.raises(ConfigError, match=r"GPT2LMHeadModel reads 128 tokens, and the lab needs 2\d\d: the prompt 'two' has \d"):
        Lab(lm, tokenizer, plan(loop_tokens=200), tmp_path).run()
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_of_another_model_is_told_first(tiny, tmp_path):
    """Guards against an index error inside of the embedding."""
    lm, tokenizer = tiny("gpt2")
    lm.resize_token_embeddings(3)
    with pytest.raises(ConfigError, match=r"the tokenizer gives token \d+ and the model knows 3; they do not belong together"):
        Lab(lm, tokenizer, plan(), tmp_path).run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"copies": 0}, "copies=0: it must be at least 1"),
        ({"copies": 5}, "copies=5: it must be at least 6"),
        ({"rule_tokens": 3}, "rule_tokens=3: it must be at least 4"),
        ({"n_folds": 1}, "n_folds=1: it must be at least 2"),
        ({"temperatures": [0.5, -1.0]}, r"temperatures=\[0.5, -1.0\]: all must be at least 0"),
        ({"penalties": [0.0]}, r"penalties=\[0.0\]: all must be above 0"),
        ({"context_lengths": [1, 2]}, r"context_lengths=\[1, 2\]: 32 has to be one of them"),
        ({"context_lengths": [1, 32]}, "and a longer one"),
    ],
)
def test_settings_have_ranges(change, message):
    """The message names the key and the value."""
    with pytest.raises(ValueError, match=message):
        plan(**change)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_prompts: 8", "n_prompt: 8", "unknown field `n_prompt`"),
        ("n_prompts: 8", "n_prompts: many", r"Expected `int`, got `str` - at `\$\.n_prompts`"),
        ("n_prompts: 8", "n_prompts: 80", "n_prompts=80: there are 24; add some, or ask for fewer"),
    ],
)
def test_a_wrong_settings_file_is_one_line(tmp_path, old, new, message):
    """Guards against a traceback, and a key that does nothing."""
    for path in (CONF / "degeneration").iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_lab_plan(tmp_path, "quick")


@pytest.mark.parametrize("name", ["full", "quick"])
def test_the_settings_in_the_repository_are_valid(name):
    """There are at least 24 prompts of two styles."""
    prompts = read_lab_plan(CONF / "degeneration", name).prompts
    assert {prompt.style for prompt in prompts} == {"completion", "chat"}
    assert len(prompts) == (24 if name == "full" else 8)


def test_topics_that_are_not_there(tiny):
    """The message names the missing topic, and some that exist."""
    _, tokenizer = tiny("gpt2")
    with pytest.raises(ConfigError, match=r"topics: cheese: not in this Python's pydoc_data; it has assert, "):
        natural_texts(tokenizer, ["cheese"], 10)
    with pytest.raises(ConfigError, match=r"topics: try: \d+ tokens, and 100000 are read"):
        natural_texts(tokenizer, ["try"], 100_000)


def test_parts_of_other_weights_are_not_taken(tiny, tmp_path):
    """Guards against a record that is half of one model and half of another."""
    lm, tokenizer = tiny("gpt2")
    whole_record(lm, tokenizer, tmp_path)
    with torch.no_grad():
        lm.transformer.wte.weight[0, 0] += 1
    with pytest.raises(ConfigError, match="measured on other weights"):
        whole_record(lm, tokenizer, tmp_path)


def test_a_text_does_not_depend_on_its_neighbours(tiny):
    """Guards against padding that a repetition penalty takes for something said before."""
    lm, _ = tiny("gpt2")
    rule = Rule("penalty", {"repetition_penalty": 1.8})
    prompts = [[5, 9, 30, 7, 8, 12, 40, 41], [7, 8]]
    assert write(lm, prompts, 12, rule, "ban")[1] == write(lm, prompts[1:], 12, rule, "ban")[0]


def test_a_large_vocabulary_is_written_with_fewer_texts_at_a_time(tiny, monkeypatch):
    """The texts are the same."""
    lm, _ = tiny("gpt2")
    prompts = [[5, 9, 30], [7, 8], [4]]
    together = write_and_read(lm, prompts, 6, RULES[0], "ban")[0]
    monkeypatch.setattr(writing, "MAX_LOGITS", 2 * 6 * lm.config.vocab_size)
    calls = []
    monkeypatch.setattr(writing, "padded", lambda rows, side: calls.append(len(rows)) or padded(rows, side))
    assert write_and_read(lm, prompts, 6, RULES[0], "ban")[0] == together
    assert calls == [2, 1]


def test_a_tokenizer_that_begins_every_text(tiny):
    """Its token is the beginning. A tokenizer without such a token has an empty beginning."""
    _, tokenizer = tiny("gpt2")
    assert beginning(tokenizer) == []
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    assert beginning(tokenizer) == [0]
    assert natural_texts(tokenizer, ["try"], 5)[0][0] != 0


def test_a_chat_prompt_stands_in_the_models_own_template(tiny):
    """A model without a template gets a simple one."""
    _, tokenizer = tiny("gpt2")
    plain = prompt_tokens(tokenizer, PROMPTS[1])
    assert plain == tokenizer("Question: what is a name ?\nAnswer:").input_ids
    tokenizer.chat_template = "{{ messages[0]['content'] }} of{% if add_generation_prompt %} the{% endif %}"
    assert prompt_tokens(tokenizer, PROMPTS[1]) == tokenizer("what is a name ? of the").input_ids


def test_nan_is_no_measurement():
    """Guards against a file that no JSON reader takes."""
    with pytest.raises(PitfallsError, match="nan was measured"):
        rounded({"a": [1.0, float("nan")]})


@pytest.mark.slow
def test_the_page_shows_a_lab_in_a_browser(tiny, tmp_path):
    """The page loads without a message on the console. Beliefs open, texts change, copies are marked, curves and map exist."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium")
    record = whole_record(*tiny("gpt2"), tmp_path)
    record.strips.append(msgspec.structs.replace(record.strips[0], name="another", tokens=["<b>", "x"], copy=[0, 0]))
    judgements = judge_beliefs(read_beliefs(BELIEFS), record.measures)
    path, messages = tmp_path / "report.html", []
    path.write_text(page.render([], lab_tables.tables(record, judgements), [], (record, judgements)))
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.goto(path.as_uri())
        assert tab.locator("#lab-ledger details").count() == len(judgements)
        tab.click("#lab-ledger summary >> nth=0")
        assert "holds if" in tab.inner_text("#lab-ledger li >> nth=0")
        assert tab.locator("#strip span").count() == len(record.strips[0].tokens)
        assert tab.inner_text("#strip sup >> nth=0") == "1"
        assert tab.locator("#copies-p polyline").count() == tab.locator("#copies-entropy polyline").count() == 4
        assert tab.locator("#map table").count() == 3
        assert tab.locator("#map td").count() == 3 * len(record.map)
        tab.select_option("#text", str(len(record.strips) - 1))
        assert tab.inner_text("#strip") == "<b>x", "a text is text, not markup"
        tab.set_viewport_size({"width": 380, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 380, "a phone needs no sideways scrolling"
        browser.close()
    assert messages == []


@pytest.mark.parametrize(("n", "can"), [(16, False), (40, True)])
def test_what_so_few_values_could_not_hold_is_said(n, can):
    """Guards against an "undecided" that no model could have escaped: 16 of 16 are at least 0.81, not 0.9."""
    assert Belief("s", "m", "x", at_least=0.9).can_hold(share([1.0] * n)) == can
    assert Belief("s", "m", "x", at_most=0.1).can_hold(share([1.0] * n)) == can
    assert Belief("s", "m", "x", at_least=0.9).can_hold(mean([0.5] * n))
    judgements = judge_beliefs([Belief("s", "m", "x", at_least=0.9)], {"x": share([1.0] * n)})
    record = read_json(ROOT / "results" / "degeneration" / "smollm2" / "record.json", LabRecord)
    assert lab_tables.ledger(record, judgements).rows[0][4] == ("40" if can else "16, too few to hold")


def test_a_measure_that_never_varies_holds_nothing():
    """Guards against five zeros that "confirm" a gain of at least zero."""
    never = Estimate(0.0, 0.0, 0.0, 9)
    assert judge_beliefs([Belief("s", "m", "x", at_least=0.0)], {"x": never})[0].verdict == UNDECIDED


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.6, 0.9, HOLDS), (0.4, 0.6, UNDECIDED), (0.1, 0.4, REFUTED)])
def test_a_belief_is_judged_by_the_whole_interval(low, high, verdict):
    """The low end has to meet a lower bound, and the high end an upper bound."""
    other = {HOLDS: REFUTED, REFUTED: HOLDS, UNDECIDED: UNDECIDED}
    at_least = Belief("s", "m", "x", at_least=0.5)
    at_most = Belief("s", "m", "x", at_most=0.5)
    estimate = Estimate(0.5, low, high, 5)
    assert [j.verdict for j in judge_beliefs([at_least, at_most], {"x": estimate})] == [verdict, other[verdict]]
    assert [j.verdict for j in judge_beliefs([at_least, at_most], {"x": Estimate(0.5, low, high, 4)})] == [UNDECIDED] * 2
    assert judge_beliefs([at_least], {})[0].verdict == NOT_MEASURED


def test_every_belief_asks_for_a_measure_of_the_lab(tiny, tmp_path):
    """Guards against a misspelt measure, which would be "not measured" for ever."""
    measures = set(whole_record(*tiny("gpt2"), tmp_path).measures)
    assert {belief.measure for belief in read_beliefs(BELIEFS)} == measures


def test_a_wrong_ledger_is_one_line(tmp_path):
    """The message names the place."""
    path = tmp_path / "claims.yaml"
    path.write_text("a: {statement: s, measured: m, measure: x, at_least: 1, at_most: 2}\n")
    with pytest.raises(ConfigError, match="^claims.yaml: a: give at_least or at_most"):
        read_beliefs(path)


def test_words_of_several_tokens_are_told(tiny, tmp_path):
    """Guards against StopIteration, and against copies of words that are no units."""
    lm, tokenizer = tiny("gpt2")
    small = plan()
    several = dataclasses.replace(small, units=msgspec.structs.replace(small.units, words=["the of", "of a", "a the"]))
    with pytest.raises(ConfigError, match="units.yaml: words: 'the of' and all others are several tokens each; choose others"):
        Lab(lm, tokenizer, several, tmp_path, log=lambda line: None).run()
