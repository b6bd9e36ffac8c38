"""The measures of the lab, on sequences and models made by hand."""

import math
from statistics import fmean
from types import SimpleNamespace

import msgspec
import pytest
import torch
from msgspec import UNSET
from transformers import BloomConfig, BloomForCausalLM, LlamaForCausalLM

from pitfalls.language import (
    belief_measures,
    context_length,
    induction_heads,
    lab_parts,
    lab_summary,
    repetition_probe,
    rules_and_loops,
    self_reinforcement,
)
from pitfalls.language.generation import Rule
from pitfalls.language.lab_parts import (
    Continuation,
    GreedyText,
    HeadReading,
    HeadReadings,
    LayerAreas,
    LengthRow,
    LoopEscapes,
    LoopInContext,
    Parts,
    RuleText,
    RuleTexts,
)
from pitfalls.language.reading import expectations, read
from pitfalls.language.repetition import final_loop
from pitfalls.language.rules_and_loops import continuation
from tests.language.conftest import plan


@pytest.mark.parametrize(
    ("new", "left_after", "escaped"),
    [
        ([7, 8, 9, 7, 8, 9], None, False),  # it never left
        ([7, 8, 1, 2, 3, 4], 2, True),
        ([1, 2, 3, 4, 5, 6], 0, True),
        ([7, 1, *[8, 9, 7] * 6], 1, False),  # left, and back in the same loop
        ([1, 2, 1, 2, 1, 2], 0, False),  # left for another
    ],
)
def test_what_becomes_of_a_loop(new, left_after, escaped):
    """Guards against a loop that is left only to be taken up again."""
    assert continuation("x", [7, 8, 9], new, [4, 7, 8, 9, 7, 8, 9, 7, 8, 9]) == Continuation("x", left_after, escaped)


def test_a_window_has_the_context_that_it_says(tiny):
    """Compare with one pass per target: the i-th target of a window has length + i tokens before it."""
    lm, _ = tiny("gpt2")
    text = torch.randint(2, 300, (80,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = {row.length: row for row in context_length.by_length(lm, [], text, [20, 40], [1, 4, 20])}
    for length, row in rows.items():
        for window, place in enumerate((20, 40)):
            log_p = [
                read(lm, [text[place - length : place + i + 1]])[0].log_p[-1].item() for i in range(context_length.N_TARGETS)
            ]
            assert row.nll[window] == pytest.approx(-sum(log_p) / len(log_p), rel=1e-3)
    assert rows[20].kl == pytest.approx([0, 0], abs=1e-6)
    assert rows[20].agreement == [1, 1]
    assert min(rows[1].kl) > 0


def test_divergence_is_from_the_longest_context_to_the_shorter_one(tiny):
    """Guards against the other direction, KL(short | long): compare with sums over the vocabulary, target by target."""
    lm, _ = tiny("gpt2")
    with torch.no_grad():
        lm.transformer.ln_f.weight.mul_(3)  # more certain: then the two directions differ clearly
    text = torch.randint(2, 300, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    row = next(row for row in context_length.by_length(lm, [], text, [20, 30], [1, 20]) if row.length == 1)

    def after(context: list[int]) -> torch.Tensor:
        return expectations(lm, [[*context, 0]])[0, -1].double()

    for window, place in enumerate((20, 30)):
        forwards, backwards = [], []
        for i in range(context_length.N_TARGETS):
            long, short = after(text[place - 20 : place + i]), after(text[place - 1 : place + i])
            forwards.append((long.exp() * (long - short)).sum().item())
            backwards.append((short.exp() * (short - long)).sum().item())
        assert row.kl[window] == pytest.approx(fmean(forwards), rel=1e-3)
        assert fmean(backwards) != pytest.approx(fmean(forwards), rel=5e-3), "here the two directions differ by more than errors"


def test_the_tail_is_what_the_likeliest_forty_leave(tiny):
    """With a uniform model the tail is 1 - 40 / V."""
    lm, _ = tiny("gpt2")
    with torch.no_grad():
        lm.transformer.ln_f.weight.zero_()
        lm.transformer.ln_f.bias.zero_()
    found = context_length.tails(lm, [3, 4, 5])
    size = lm.config.vocab_size
    assert found.tail == pytest.approx([1 - 40 / size] * 2, rel=1e-4)
    assert found.entropy == pytest.approx([math.log(size)] * 2, rel=1e-4)


def test_second_copies_repeat():
    """Tokens repeat from the second copy on, and none does outside of a loop."""
    assert repetition_probe.repeating([9, 1, 2, 1, 2, 1, 2, 8]) == [False] * 3 + [True] * 4 + [False]


def test_the_probe_has_the_loss_that_is_written_down():
    """Guards against a wrong C: at the fitted weights, the gradient of mean cross-entropy + RIDGE * |w|^2 is zero."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=draws) * torch.tensor([1.0, 3.0, 0.1, 20.0, 1.0]) + 2
    y = (x[:, 1] + x[:, 4] + torch.randn(300, generator=draws)) > 6
    scaler, regression = (step for _, step in repetition_probe.fit_probe(x, y).steps)
    z = torch.tensor(scaler.transform(x.double().numpy()))
    assert z.std(0, correction=0).tolist() == pytest.approx([1] * 5)
    w = torch.tensor([*regression.intercept_, *regression.coef_[0]], requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z @ w[1:] + w[0], y.double())
    (loss + repetition_probe.RIDGE * w[1:].square().sum()).backward()
    assert w.grad.abs().max() < 1e-6
    assert w[1:].abs().max() > 0.1


def test_the_area_is_a_share_of_pairs(monkeypatch):
    """Compare with areas by hand. Ties count half. A prompt in which all tokens repeat has no area."""

    class AsItIs:
        def decision_function(self, x):
            return x[:, 0]

    monkeypatch.setattr(repetition_probe, "fit_probe", lambda x, y: AsItIs())
    features = [torch.tensor([[3.0], [1.0], [2.0], [1.0]]), torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]])]
    labels = [torch.tensor([True, True, False, False]), torch.tensor([True, True]), torch.tensor([True, False])]
    assert repetition_probe.held_out(features, labels, 3) == [pytest.approx((1 + 1 + 0 + 0.5) / 4), None, 0.0]


def test_the_probe_is_judged_on_prompts_that_it_has_not_seen():
    """A feature that distinguishes prompts but not tokens has an area of 0.5. One that distinguishes tokens has 1."""
    draws = torch.Generator().manual_seed(0)
    labels = [torch.rand(40, generator=draws) < 0.5 for _ in range(6)]
    useful = [torch.stack([y.float(), torch.randn(40, generator=draws)], 1) for y in labels]
    by_prompt = [(torch.nn.functional.one_hot(torch.tensor(i), 6) * y[:, None]).float() for i, y in enumerate(labels)]
    assert min(repetition_probe.held_out(useful, labels, 3)) > 0.99
    assert repetition_probe.held_out(by_prompt, labels, 3) == [0.5] * 6


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_silenced_heads(tiny, kind):
    """With no head silenced, the model is unchanged. With all, no token sees another. Afterwards, it is as before."""
    lm, _ = tiny(kind)
    tokens = torch.tensor([[5, 9, 30, 7]])
    with torch.no_grad():
        before = lm(input_ids=tokens).logits
        with induction_heads.silenced(lm, []):
            torch.testing.assert_close(lm(input_ids=tokens).logits, before)
        with induction_heads.silenced(
            lm, [(layer, head) for layer, row in enumerate(induction_heads.heads_of_layers(lm)) for head in row]
        ):
            alone = lm(input_ids=tokens[:, -1:], position_ids=torch.tensor([[3]])).logits[:, -1]
            torch.testing.assert_close(lm(input_ids=tokens).logits[:, -1], alone)
            assert (alone - before[:, -1]).abs().max() > 1e-3
        assert torch.equal(lm(input_ids=tokens).logits, before)


def test_one_silenced_head_is_that_one(tiny):
    """Compare with an output projection whose rows for that head are zero."""
    lm, _ = tiny("gpt2")
    tokens = torch.tensor([[5, 9, 30, 7]])
    with torch.no_grad():
        with induction_heads.silenced(lm, [(1, 0)]):
            found = lm(input_ids=tokens).logits
        width = lm.config.n_embd // lm.config.n_head
        lm.transformer.h[1].attn.c_proj.weight[:width].zero_()
        torch.testing.assert_close(found, lm(input_ids=tokens).logits)


def test_random_heads_are_others_than_the_strongest_and_differ_from_draw_to_draw(tiny):
    """Guards against controls that silence the same heads in every draw, or one of the strongest heads."""
    ablation = induction_heads.Ablation(tiny("gpt2")[0], plan(), [], [], [], list, "ban")
    ablation.scores = [[0.1, 0.9, 0.3, 0.2, 0.5], [0.4, 0.05, 0.8, 0.6, 0.7]]
    assert ablation.chosen("none", 0, 0) == []
    assert ablation.chosen("strongest", 3, 0) == [(0, 1), (1, 2), (1, 4)]
    draws = [ablation.chosen("random", 3, draw) for draw in range(8)]
    assert draws == [ablation.chosen("random", 3, draw) for draw in range(8)]
    assert all(len(set(draw)) == 3 and not set(draw) & {(0, 1), (1, 2), (1, 4)} for draw in draws)
    assert len({tuple(draw) for draw in draws}) > 5
    assert {head for draw in draws for head in draw} == {(0, 0), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 3)}


def test_induction_scores_are_attention_to_what_followed(tiny):
    """Compare with transformers' own attention weights."""
    lm, _ = tiny("llama")
    start = [2, 3]
    found = induction_heads.induction_scores(lm, start, 0)
    seen = []

    def note(module, args, kwargs):
        seen.append(kwargs["input_ids"])

    handle = lm.register_forward_pre_hook(note, with_kwargs=True)
    induction_heads.induction_scores(lm, start, 0)
    handle.remove()
    lm.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = lm(input_ids=seen[0], output_attentions=True).attentions
    n, k = induction_heads.N_REPEATED, len(start)
    assert seen[0][:, :k].tolist() == [start] * induction_heads.N_ROWS
    assert torch.equal(seen[0][:, k : k + n], seen[0][:, k + n :])
    for row, weights in zip(found, attentions, strict=True):
        wanted = torch.stack([weights[:, :, k + i, k + i - n + 1] for i in range(n, 2 * n)]).mean((0, 1))
        assert row == pytest.approx(wanted.tolist(), rel=1e-4)


@pytest.mark.parametrize(("kind", "there"), [("gpt2", True), ("llama", True), ("pythia", True), ("mamba", False)])
def test_who_has_heads(tiny, kind, there):
    """Models with and without observable heads are distinguished before anything is measured."""
    assert induction_heads.has_heads(tiny(kind)[0]) == there


class Capped(LlamaForCausalLM):
    """A config with an option that our attention does not have."""

    def forward(self, *args, **others):
        output = super().forward(*args, **others)
        if self.config._attn_implementation == induction_heads.NAME:
            output.logits = output.logits.tanh()
        return output


def test_a_model_that_is_another_one_when_it_is_observed_is_left_out(tiny):
    """Guards against soft caps and sinks that transformers passes to an attention and ours would ignore."""
    lm, _ = tiny("llama")
    lm.__class__ = Capped
    assert not induction_heads.has_heads(lm)


def test_attention_that_cannot_be_observed_is_left_out():
    """Guards against verdicts from heads that were never silenced: Bloom's attention is its own."""
    torch.manual_seed(0)
    assert not induction_heads.has_heads(BloomForCausalLM(BloomConfig(vocab_size=40, hidden_size=16, n_layer=2, n_head=2)).eval())


def test_the_beginning_stands_before_every_context_and_copy(tiny):
    """Guards against a first token that only the longest context has."""
    lm, _ = tiny("gpt2")
    text = torch.randint(2, 300, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    row = context_length.by_length(lm, [0], text, [20], [4])[0]
    log_p = [read(lm, [[0, *text[16 : 20 + i + 1]]])[0].log_p[-1].item() for i in range(context_length.N_TARGETS)]
    assert row.nll == pytest.approx([-sum(log_p) / len(log_p)], rel=1e-3)
    found = self_reinforcement.copy_means(lm, [0], [[5, 6]], 3)[0]
    whole = read(lm, [[0, *[5, 6] * 3]])[0].p.tolist()
    assert found.p == pytest.approx([sum(whole[3:5]) / 2, sum(whole[5:7]) / 2], rel=1e-4)


def test_the_fourth_copy_is_what_is_asked_for(tiny):
    """Compare, for a loop just formed, the tokens of the next copy, also after each length of context."""
    lm, _ = tiny("gpt2")
    none = [0.0] * 10
    text = GreedyText("x", "chat", [9], [30, 31, *[4, 5] * 4], none, none, none, none)
    whole = [9, 30, 31, *[4, 5] * 3]
    p = read(lm, [[*whole, 4, 5]])[0].p
    assert induction_heads.loop_probability(lm, [text]) == pytest.approx([p[-2:].mean().item()], rel=1e-4)
    found = context_length.in_loops(lm, [], [text], [1, 4, 9, 10])[0]
    assert list(found.p) == [1, 4, 9], "no longer than what stands before"
    longer = read(lm, [[*whole, *[4, 5] * 4]])[0].p
    assert found.p[9] == pytest.approx(longer[-8:].mean().item(), rel=1e-3)


def test_rank_correlation_by_hand():
    """Ties have their mean rank: ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4. A constant side has no order: 0, not NaN."""
    assert lab_summary.rank_correlation([1, 2, 2, 9], [1, 3, 2, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert lab_summary.rank_correlation([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)
    assert lab_summary.rank_correlation([1, 1, 1], [1, 2, 3]) == 0


def text_with_loop(entropy, end=None, style="completion"):
    tokens = [*range(100, 140), *[1, 2, 3, 4, 5] * 5]
    n = len(tokens)
    half, never = [0.5] * n, [0.0] * n
    return GreedyText("x", style, [], tokens, half, entropy, half, end or never)


def test_a_spike_is_measured_against_the_text_before_it():
    """With one nat before the window and three in it, the spike is two."""
    entropy = [1.0] * 36 + [3.0] * 4 + [0.1] * 25
    assert lab_summary._onset([text_with_loop(entropy)], 4, has_end=True).spike.value == pytest.approx(2.0)
    text = text_with_loop(entropy)
    assert belief_measures._entropy_ratio(text, final_loop(text.tokens)) == pytest.approx(0.1 / 1.2)


@pytest.mark.parametrize(("place", "share"), [(32, 0.0), (31, 0.0), (30, 1 / 16), (20, 11 / 16), (0, 1 / 16)])
def test_the_wish_to_stop_elsewhere_is_that_of_stretches_before_the_one_near_the_start(place, share):
    """Guards against stretches that overlap the one near the start: with a start at 40, that one begins at 32."""
    end = [0.0] * 65
    end[place] = 0.9
    assert lab_summary._end_elsewhere(end, 40) == pytest.approx(share)


@pytest.mark.parametrize(("place", "near"), [(41, 1.0), (33, 1.0), (31, 0.0), (60, 0.0)])
def test_the_wish_to_stop_counts_near_the_start(place, near):
    """The tokens near a start at 40 are eight to either side."""
    end = [0.0] * 65
    end[place] = 0.9
    assert lab_summary._onset([text_with_loop([1.0] * 65, end)], 4, has_end=True).end_near.value == near


def test_copies_are_averaged_one_by_one():
    """The n-th row is the n-th copy."""
    entropy = [9.0] * 40 + [5.0] * 5 + [4.0] * 5 + [3.0] * 5 + [2.0] * 5 + [1.0] * 5
    found = lab_summary._copies([text_with_loop(entropy)])
    assert [row.entropy.value for row in found.rows] == [5, 4, 3, 2, 1]
    assert found.before.entropy.value == 9
    text = text_with_loop(entropy)
    cut = msgspec.structs.replace(text, tokens=text.tokens[:-2])
    assert [row.entropy.value for row in lab_summary._copies([cut]).rows] == [5, 4, 3, 2], "a copy that is cut short is none"


def test_kinds_of_text():
    """A loop is a loop, however probable it is. Noise is improbable text."""
    assert RuleText([1, 1, 1], 9.0).kind == "loop"
    assert RuleText([1, 2, 3], 7.0).kind == "noise"
    assert RuleText([1, 2, 3], 3.0).kind == "text"


def test_a_loop_within_the_unit_of_another_is_no_loop_of_its_own():
    """Guards against a text that never leaves its loop and counts as having left three."""
    text = msgspec.structs.replace(text_with_loop([1.0] * 65), tokens=[1, 1, 1, 2] * 5)
    found = lab_summary._loops([text])
    assert found.found == 1
    assert found.ended.value == 0


LOOPING, NOISY, FINE = RuleText([5, 5, 5, 5], 1.0), RuleText([1, 2, 3, 4], 8.0), RuleText([1, 2, 3, 4], 2.0)
LEFT, STUCK = Continuation("x", 3, True), Continuation("x", None, False)


def test_collapse_is_counted_by_prompt():
    """There are two draws of two prompts: three texts of the first collapse, all loop, and two of the second, one loops."""
    parts = Parts({RuleTexts("a"): [LOOPING, LOOPING, NOISY, FINE], RuleTexts("b"): [LOOPING, LOOPING]})
    assert belief_measures._low_collapse(parts, 2).value == pytest.approx((1 + 0.5) / 2)
    assert belief_measures._low_collapse(parts, 2).n == 2
    assert belief_measures._low_collapse(Parts({RuleTexts("a"): [FINE, FINE]}), 2) is None


def test_rules_are_counted_by_prompt_and_draw():
    """Draws of one prompt are neighbours: three draws of two prompts, and of one loop. Each prompt or loop is one value."""
    texts = [LOOPING, FINE, FINE, LOOPING, LOOPING, LOOPING]
    parts = Parts({RuleTexts("a"): texts, LoopEscapes("a"): [LEFT, STUCK, LEFT]})
    row = lab_summary._rules(parts, 2)[0]
    assert (row.loops.value, row.loops.n) == (pytest.approx(2 / 3), 2)
    assert (row.escapes.value, row.escapes.n, row.leaves.value) == (pytest.approx(2 / 3), 1, pytest.approx(2 / 3))
    assert (row.noise.n, row.rep_4.n, row.surprisal.n) == (2, 2, 2)
    assert row.distinct_2 == pytest.approx(4 / 18)


def test_heads_drive_a_loop_as_far_as_it_falls_without_them():
    """The set of middle size and means over draws of other heads count. It is positive if the strongest matter more."""
    loops = {
        HeadReadings("none", 0, 0): [0.9, 0.9],
        **{HeadReadings("strongest", n, 0): [0.3, 0.5] for n in (2, 8)},
        HeadReadings("strongest", 4, 0): [0.2, 0.4],
        HeadReadings("random", 4, 0): [0.7, 0.8],
        HeadReadings("random", 4, 1): [0.9, 1.0],
    }
    parts = Parts({key: HeadReading([], p, []) for key, p in loops.items()})
    assert belief_measures._heads_drive(parts).value == pytest.approx(((0.8 - 0.2) + (0.9 - 0.4)) / 2)
    assert belief_measures._heads_drive(Parts()) is None


def test_copies_are_counted_from_the_second_one_on():
    """Four rises from the second copy to the sixth, and the fourth copy, which follows three. Later copies do not count."""
    ps = [[0.1, 0.2, 0.3, 0.25, 0.4, 0.0], [0.1, 0.2, 0.5, 0.6, 0.7, 0.1]]
    sentences = [lab_parts.CopyMeans(p, [], []) for p in ps]
    parts = Parts(
        {
            lab_parts.RepeatedUnits("sentence"): sentences,
            lab_parts.RepetitionSign(): [LayerAreas(None, [0.5]), LayerAreas(0, [0.5])],
        }
    )
    names = (belief_measures.TOP_P, belief_measures.PENALTY)
    nothing = SimpleNamespace(rate=None, end_near=UNSET, spike=None, correlation=None, topics=[])
    rules = [SimpleNamespace(rule=name, escapes=None) for name in names]
    record = SimpleNamespace(loops={"ban": nothing}, ending="ban", onset=nothing, rules=rules, tail=nothing, settings=nothing)
    found = belief_measures.belief_measures(parts, [], record)
    assert found["copies_raise"].value == pytest.approx((3 / 4 + 1) / 2)
    assert found["after_three_copies"].value == pytest.approx((0.3 + 0.5) / 2)


def test_context_gains_what_the_loss_falls():
    """The gain is from 32 tokens to the longest context."""
    rows = [LengthRow(n, [loss, loss], [], [], []) for n, loss in ((512, 2.0), (128, 2.2), (32, 2.5), (1, 7.0))]
    assert belief_measures._context_gain(rows) == pytest.approx(0.5)


def test_a_sign_is_what_states_know_beyond_positions():
    """Areas are paired by prompt, at the middle layer."""
    areas = {None: [0.5, 0.6, None], 0: [0.1, 0.1, None], 5: [0.9, 0.8, None], 9: [1.0, 1.0, None]}
    rows = [LayerAreas(layer, auc) for layer, auc in areas.items()]
    assert belief_measures._sign_over_position(rows).value == pytest.approx(0.3)


def test_rows_of_a_context_table_are_about_the_same_loops():
    """A length that one loop does not have is left out."""
    loops = [LoopInContext("x", 3, {1: 0.2, 8: 0.6}), LoopInContext("y", 3, {1: 0.4})]
    assert [(row.length, row.p.value) for row in lab_summary._context_of_loops(loops, [1, 8])] == [(1, pytest.approx(0.3))]
    assert lab_summary._context_of_loops([], [1, 8]) == []


def test_one_token_alone_looks_the_same_everywhere(tiny):
    """Show why a repeated word needs text before it: with relative positions, attention over equal values gives that value."""
    lm, _ = tiny("llama")
    alone = self_reinforcement.copy_means(lm, [], [[7]], 6)[0].entropy
    assert alone == pytest.approx([alone[0]] * 5, abs=1e-5)
    after = self_reinforcement.copy_means(lm, [3, 4], [[7]], 6)[0].entropy
    assert max(after) - min(after) > 1e-3


def test_a_loop_that_is_taken_up_again_is_not_escaped():
    """Two copies of a long unit after another word are not yet a loop by their number, but they are still the old loop."""
    unit = list(range(20, 28))
    assert continuation("x", unit, [20, 99, *unit, *unit], unit * 3) == Continuation("x", 1, False)
    assert continuation("x", unit, [20, 99, *range(40, 56)], unit * 3) == Continuation("x", 1, True)


def test_a_new_loop_that_begins_in_the_old_one_is_not_escaped(monkeypatch):
    """Guards against a continuation judged without the three copies before it: the last of them begins the new loop, 7 8 1."""
    asked = []
    monkeypatch.setattr(rules_and_loops, "write", lambda lm, prompts, *_: asked.append(prompts) or [[1, 7, 8, 1, 7, 8, 1]] * 2)
    none = [0.0] * 10
    text = GreedyText("x", "chat", [4], [30, 31, *[7, 8] * 4], none, none, none, none)
    found = rules_and_loops.escapes(None, lambda: [text], 2, 7, Rule("greedy"), "ban", 0)
    assert asked == [[[4, 30, 31, *[7, 8] * 3]] * 2], "the rule continues after the third copy"
    assert found == [Continuation("x", 0, False)] * 2


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (lab_parts.GreedyTexts("ban"), "loops--ban.json"),
        (lab_parts.RepeatedUnits("word"), "units--word.json"),
        (RuleTexts("top-p 0.9"), "rules--top-p 0.9.json"),
        (LoopEscapes("greedy"), "escapes--greedy.json"),
        (lab_parts.MapTexts(0.5, 1.1), "map--0.5--1.1.json"),
        (lab_parts.ContextLengths("try"), "context--try.json"),
        (lab_parts.TailMasses("try"), "tail--try.json"),
        (lab_parts.LoopsInContext(), "context-of-loops.json"),
        (lab_parts.RepetitionSign(), "sign.json"),
        (lab_parts.HeadScores(), "heads--scores.json"),
        (HeadReadings("random", 16, 1), "heads--read--random--16--1.json"),
        (lab_parts.HeadTexts("none", 0, 0), "heads--write--none--0--0.json"),
    ],
)
def test_a_part_keeps_its_file(tmp_path, key, name):
    """Guards against renamed files: a stopped lab continues with the files that it has."""
    assert lab_parts.part_file(tmp_path, key) == tmp_path / name
    assert key in Parts({key: []})
    assert Parts({key: []}).keys(type(key)) == [key]


def test_two_kinds_of_parts_with_the_same_fields_are_two_parts():
    """Guards against texts of a rule that are taken for its escapes."""
    parts = Parts({RuleTexts("a"): [FINE], LoopEscapes("a"): [LEFT]})
    assert (parts[RuleTexts("a")], parts[LoopEscapes("a")]) == ([FINE], [LEFT])
    assert parts.keys(RuleTexts) == [RuleTexts("a")]
