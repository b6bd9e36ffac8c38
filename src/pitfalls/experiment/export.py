"""Export of a run's language model as a Hugging Face folder that transformers loads.

Only a trunk with convolutions needs this package to be loaded, because transformers does not have its architecture.

The folder has the weights (safetensors), a tokenizer that reads the authors' text lines, and a README.md. The README explains
how the model answers and what is left out. Only the language model is exported. An objective whose answers need its own
heads, inputs or masks is refused.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitfalls.experiment.build import Run
from pitfalls.experiment.cli import writable_folder
from pitfalls.experiment.notebook import check_run
from pitfalls.runs.files import write_bytes
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:  # imported when needed: torch and transformers take seconds
    from transformers import PreTrainedTokenizerFast

PAD = "<pad>"

CARD = """\
# {title}

A {architecture} that was trained on path-star graphs {graph} with node values 0 to {largest}, by the objective `{objective}` with
seed {seed}. It comes from a reproduction of *The Pitfalls of Next-Token Prediction* (Bachmann & Nagarajan, ICML 2024).

A prompt is a shuffled list of edges, then the start and the goal: `a,b|c,d|...|y,z/start,goal=`. It has {n_edges} edges. The
tokenizer reads it as {prompt_length} tokens, because commas only separate. It raises an error for a node value that the model
does not know. Decoded tokens have the same form.

```python
{code}
```

{notes}
"""

GENERATE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (auto.from_pretrained("FOLDER") for auto in (AutoModelForCausalLM, AutoTokenizer))
prompt = tokenizer("{prompt}", return_tensors="pt")
tokens = model.generate(**prompt)[0, prompt.input_ids.shape[1]:]
print(tokenizer.decode(tokens))"""

ONE_PASS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (auto.from_pretrained("FOLDER") for auto in (AutoModelForCausalLM, AutoTokenizer))
prompt = tokenizer("{prompt}" + {n_dummies} * "<dummy>", return_tensors="pt")
tokens = model(**prompt).logits[0, -{length}:].argmax(-1)
print(tokenizer.decode(tokens))"""


def export(run: Run, folder: str | Path) -> Path:
    """Write a run's language model as a Hugging Face folder, and return the folder.

    ``AutoModelForCausalLM.from_pretrained`` and ``AutoTokenizer.from_pretrained`` of transformers 5 load it. The weights are
    the run's own. Logits agree with those of the run's trunk up to the rounding of another attention function (in fp32 a few
    millionths). The token ids of a model from scratch are those of the task. A pretrained model keeps its own ids.

    Args:
        run: a run from `load_run`.
        folder: a new or empty folder.

    Raises:
        ConfigError: the folder is not empty, or the model cannot answer as the run does.
    """
    from transformers import logging

    folder = writable_folder(Path(folder), "folder=")
    how = _how_it_answers(check_run(run))
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: there are files in it already; export into a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()  # no bars for files that are written in a second
    run.trunk.lm.save_pretrained(folder)
    _generation(run).save_pretrained(folder)
    make_tokenizer(run).save_pretrained(folder)
    write_bytes(folder / "README.md", _card(run, how).encode())
    return folder


def _how_it_answers(run: Run) -> str:
    """Return "generate" or "one pass": the way in which the language model alone gives the objective's answers.

    The logits of four graphs are compared in both ways. This also works for a new objective that this package does not know.

    Raises:
        ConfigError: neither way gives the objective's logits.
    """
    import torch

    from pitfalls.seeding import generator

    trunk, objective, task = run.trunk, run.objective, run.task
    graphs = objective.view(task.sample(4, generator(0, "probe")).to(trunk.lm.device))
    n, length = task.prompt_length, objective.written_length(task.target_length)
    whole = len(objective.supervised()) == task.target_length
    places = range(length) if whole else [objective.places(task.target_length)[i] for i in objective.supervised()]
    with torch.no_grad():
        if objective.decoders[0] == "autoregressive":
            tokens = torch.cat([graphs.prompt, graphs.target], 1)
            own = [objective.step_logits(trunk, tokens[:, : n + i], None) for i in places]
            plain = [trunk.logits(trunk(tokens[:, : n + i]).normed[:, -1]) for i in places]
            if torch.allclose(torch.stack(own), torch.stack(plain), rtol=1e-3, atol=1e-4):
                return "generate"
        elif objective.decoders[0] == "parallel":
            dummies = graphs.prompt.new_full((len(graphs.prompt), length - 1), task.vocabulary.id("<dummy>"))
            logits = trunk.logits(trunk(torch.cat([graphs.prompt, dummies], 1), first=n - 1).normed)
            if torch.allclose(objective.parallel_logits(trunk, graphs.prompt, length), logits, rtol=1e-3, atol=1e-4):
                return "one pass"
    raise ConfigError(
        f"objective={run.config.objective.name} cannot be exported: its answers need heads, inputs or masks of its own, which "
        f"transformers does not know; export a run of another objective, such as next_token"
    )


def _generation(run: Run) -> Any:
    """Return the settings of ``generate``: L greedy tokens, which no end token cuts short."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        max_new_tokens=1 if run.objective.supervised() == (1,) else run.objective.written_length(run.task.target_length),
        pad_token_id=_ids(run)[PAD],
    )


def _ids(run: Run) -> dict[str, int]:
    """Return the id that the language model has for each node value and symbol."""
    vocabulary = run.objective.spec.vocabulary
    mapped = run.trunk.token_ids
    return {vocabulary.symbol(i): i if mapped is None else int(mapped[i]) for i in range(vocabulary.size)}


def make_tokenizer(run: Run) -> "PreTrainedTokenizerFast":
    """Return a tokenizer that reads ``a,b|c,d/start,goal=`` as the token ids of the run's language model, and writes them so.

    A text may continue after the ``=``, as the lines of the authors' files do. Other ids of a pretrained model are called
    ``<unusedID>``.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from pitfalls.tasks.vocabulary import SPECIALS

    ids = _ids(run)
    size = run.trunk.lm.get_input_embeddings().weight.shape[0]
    names = {i: f"<unused{i}>" for i in range(size)} | {i: name for name, i in ids.items()}
    fast = Tokenizer(models.WordLevel({name: i for i, name in names.items()}))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[,\s]+"), "removed"),
            pre_tokenizers.Split(Regex("[|/=]"), "isolated"),
        ]
    )
    # a symbol such as </T> is found before the text is split at its /
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS if len(name) > 1])
    # numbers are joined by spaces, spaces beside | / = go, and the others become commas
    fast.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            *(decoders.Replace(Regex(f" ?[{symbol}] ?"), symbol) for symbol in "|/="),
            decoders.Replace(" ", ","),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=fast, pad_token=PAD, padding_side="left", clean_up_tokenization_spaces=False)


def _card(run: Run, how: str) -> str:
    """Return the text of README.md."""
    from pitfalls.models.gpt_conv import GPTConvLMHeadModel
    from pitfalls.seeding import generator

    task, config = run.task, run.config
    sample = task.sample(1, generator(0, "probe"))
    prompt = make_tokenizer(run).decode([_ids(run)[task.vocabulary.symbol(i)] for i in sample.prompt[0].tolist()])
    length = run.objective.written_length(task.target_length)
    in_isolation = run.objective.supervised() == (1,)
    if in_isolation:
        prompt += str(int(task.start(sample.prompt)))
    code = GENERATE if how == "generate" else ONE_PASS
    if isinstance(run.trunk.lm, GPTConvLMHeadModel):
        code = code.replace("\n\n", "\n\nimport pitfalls.models.gpt_conv  # makes the architecture known to transformers\n\n", 1)
    return CARD.format(
        title=f"{config.objective.name} on {task}",
        architecture=type(run.trunk.lm).__name__,
        graph=task,
        largest=task.n_values - 1,
        objective=config.objective.name,
        seed=config.seed,
        n_edges=task.n_edges,
        prompt_length=task.prompt_length,
        code=code.format(prompt=prompt, n_dummies=length - 1, length=length),
        notes="\n".join(f"- {note}" for note in _notes(run, how)),
    )


def _notes(run: Run, how: str) -> list[str]:
    """Return notes for users of the model, each of one or two sentences."""
    from pitfalls.models.gpt_conv import GPTConvLMHeadModel

    objective, length = run.objective, run.objective.written_length(run.task.target_length)
    places = objective.places(run.task.target_length)
    n_left_out = sum(parameter.numel() for parameter in objective.parameters())
    others = [name.replace("_", " ") for name in objective.decoders[1:]]
    notes = []
    if how == "one pass":
        notes.append("The model answers in one pass. `generate` would feed it its own tokens, which it was not trained to read.")
    elif objective.supervised() == (1,):
        notes.append("The model was trained on the first hop alone. Write the start after the `=`; the next token is the answer.")
    else:
        notes.append(f"An answer has {length} tokens. `generate` is set to write them greedily.")
    if places == tuple(reversed(range(length))):
        notes.append("The model writes the path backwards, from the goal to the start. Reverse its tokens.")
    elif places != tuple(range(length)):
        shown = ", ".join(str(place) for place in places)
        notes.append(f"The path, from the start to the goal, is made of these tokens of the answer, counted from 0: {shown}.")
    if n_left_out:
        notes.append(f"{n_left_out:,} parameters of the objective are left out. This way of answering does not use them.")
    if others:
        notes.append(f"The objective also knows other ways of answering, which need the package: {', '.join(others)}.")
    if isinstance(run.trunk.lm, GPTConvLMHeadModel):
        notes.append("transformers does not have this architecture. The package `pitfalls` brings it, so it has to be installed.")
    if run.trunk.recurrent:
        notes.append("transformers runs it without fast kernels on a CPU. Logits agree up to rounding.")
    if run.trunk.token_ids is not None:
        notes.append("The model was pretrained on text. Ids that this task does not use are called `<unusedID>` here.")
    return notes
