"""Names that were given up do not come back: invented words nowhere, common words not in the module they came from.

A word is looked for as a whole name. An invented word is searched in the text of every file, comments and documentation
included; a common word only among the identifiers of its module, since prose and other modules may use it.
"""

import fnmatch
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "benchmarks", "recipes", "csrc", "docs")
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
SUFFIXES = {".py", ".md", ".toml", ".cpp", ".h", ".js", ".html", ".css"}

# Invented word -> its name from now on.
INVENTED = {
    "Ticket": "RequestHandle",
    "_Underway": "SequenceState",
    "underway": "sequence_states",
    "sounds_bytes": "encoder_cache_bytes",
    "BlockPool": "BlockManager",
    "step_tokens": "max_num_batched_tokens",
    "Guesses": "SpeculativeDecoder",
    "guesses": "draft_token_ids",
    "guesses_made": "draft_tokens_proposed",
    "guesses_accepted": "draft_tokens_accepted",
    "Shadow": "DraftSequence",
    "shadow_of": "DraftSequence",
    "hand_on": "broadcast",
    "side_by_side": "all_gather",
    "add_up": "all_reduce",
    "StaticPass": "DecodeBatch",
    "PagedPass": "PagedAttentionBatch",
    "most_reason": "length_reason",
    "spoiled": "blocks_to_zero",
    "suspect": "poisoned",
    "own_template": "custom_template",
    "_MARK": "TEXT_SENTINEL",
    "together_of": "tensor_parallel_group",
    "InputShare": "RowParallelLinear",
    "VocabularyShare": "ParallelLMHead",
    "take_place": "init_process_group",
    "divided_like": "shard_like",
    "_Sitting": "RunState",
    "milestones": "on_step_end",
    "_milestones": "on_step_end",
    "stand_in": "dummy_batch",
    "stand_ins": "dummy batches",
    "_with_stand_ins": "dummy_batch",
    "Entering": "PendingQKV",
    "entering": "pending_qkv",
    "sonagram": "spectrogram",
    "Sonagram": "Spectrogram",
}

# Files (glob patterns below src/qwen2_audio, or below the root) -> {common word: its name there from now on}.
COMMON = {
    "engine/encoder_cache.py": {"Sounds": "EncoderCache"},
    "engine/block_manager.py": {
        "Copy": "BlockCopy",
        "note": "publish",
        "match": "lookup",
        "begin": "allocate",
        "crop": "trim",
        "needs": "num_new_blocks",
    },
    "engine/scheduler.py": {"Part": "ScheduledSequence", "Plan": "SchedulerOutput", "plan": "schedule"},
    "engine/settings.py": {
        "sequences": "max_num_seqs",
        "waiting": "max_waiting",
        "lookup": "num_prompt_lookup_tokens",
        "reuse": "enable_prefix_caching",
        "draft_tokens": "num_speculative_tokens",
    },
    "engine/output_processor.py": {"Answer": "OutputProcessor", "pieces": "deltas"},
    "engine/request.py": {
        "ticket": "handle",
        "keys": "prefix_keys",
        "left": "num_uncomputed",
        "most": "max_new_tokens",
    },
    "engine/*.py": {
        "deaf": "missing_audio",
        "ticket": "handle",
        "Packed": "ForwardBatch",
        "Pace": "StepSizeController",
    },
    "engine/executor/*.py": {"heard": "encoder_ready", "Packed": "ForwardBatch"},
    "engine/speculative/*.py": {"right": "num_accepted", "say": "propose", "catch_up": "prefill of the draft"},
    "engine/executor/forward_batch.py": {
        "Packed": "ForwardBatch",
        "pasts": "num_computed",
        "counts": "query_lens",
        "wanted": "num_logits",
    },
    "engine/executor/tp_worker.py": {"follow": "run_worker", "Lead": "TPDriver", "Order": "Command"},
    "model/*.py": {"Visible": "AttentionMask"},
    "model/paged.py": {"pasts": "num_computed", "counts": "query_lens"},
    "native/*.py": {
        "Visible": "AttentionMask",
        "Room": "CacheSlot",
        "Bound": "BoundWeights",
        "Stack": "LayerTable",
    },
    "inputs/*.py": {
        "Sound": "AudioClip",
        "hear": "load_clip",
        "listen": "load_clip",
        "walk": "render_segments",
        "Piece": "Segment",
    },
    "inputs/prompt.py": {"hidden": "num_uncounted", "keys": "prefix_keys"},
    "quantize/*.py": {"Stored": "QuantizedLayer", "Piece": "QuantizedTensors", "Seen": "InputStatistics"},
    "cli/chat_input.py": {"Order": "ChatCommand"},
    "text/chat_template.py": {"walk": "render_segments", "Piece": "Segment"},
    "api/*.py": {"ticket": "handle", "tickets": "handles"},
    "train/*.py": {"throat": "vtlp", "sitting": "state"},
    "recipes/nano/configs/*.toml": {"throat": "vtlp"},
    "serve/*.py": {
        "ticket": "handle",
        "Place": "Reservation",
        "take": "reserve",
        "held": "reserved_bytes",
        "whole": "collect",
        "pieces": "stream",
    },
    "serve/routes/*.py": {"ticket": "handle", "whole": "collect", "pieces": "stream"},
    "csrc/*": {"Bound": "BoundWeights", "Stack": "LayerTable", "keep": "write_kv", "turn": "transpose"},
    "serve/static/*": {"tray": "attachments"},
}

# Where a retired word may stand: names that work for one more version, and places that say so.
ALLOWED = {
    ("sounds_bytes", "src/qwen2_audio/engine/settings.py"),
    ("sounds_bytes", "src/qwen2_audio/serve/metrics.py"),
    ("sounds_bytes", "docs/engine.md"),
    ("step_tokens", "src/qwen2_audio/engine/settings.py"),
    ("step_tokens", "docs/engine.md"),
    ("guesses_made", "src/qwen2_audio/serve/metrics.py"),
    ("guesses_accepted", "src/qwen2_audio/serve/metrics.py"),
}

# Not renamed yet: (word, file or glob). Empty before a release; the test prints what is left of it.
PENDING: set[tuple[str, str]] = set()


def sources():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return sorted(files) + [ROOT / name for name in PAGES]


def python_names(text):
    """(line, name) of every identifier; names inside strings and comments are none."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def other_names(text, comment="//"):
    """The same for C++, JavaScript and CSS, and for TOML with `comment` "#": without comments and strings."""

    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])

    ignored = rf"/\*.*?\*/|{comment}[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    text = re.sub(ignored, blank, text, flags=re.S)
    for match in re.finditer(r"[A-Za-z_]\w*", text):
        yield text.count("\n", 0, match.start()) + 1, match[0]


def files_of(pattern):
    base = ROOT / "src" / "qwen2_audio"
    return sorted(path for root in (base, ROOT) for path in root.glob(pattern) if path.suffix in SUFFIXES)


def invented_uses():
    """(word, file, line) of every invented word."""
    expression = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, INVENTED))})(?!\w)")
    for path in sources():
        file = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for match in expression.finditer(line):
                yield match[1], file, number


def common_uses():
    """(word, file, line) of every common word among the identifiers of its module."""
    for pattern, words in COMMON.items():
        for path in files_of(pattern):
            text = path.read_text(encoding="utf-8")
            names = other_names(text, "#" if path.suffix == ".toml" else "//")
            for line, name in python_names(text) if path.suffix == ".py" else names:
                if name in words:
                    yield name, str(path.relative_to(ROOT)), line


def uses():
    """{(word, file): lines} of all retired words, without the places that are allowed."""
    lines = {}
    for word, file, line in (*invented_uses(), *common_uses()):
        if (word, file) not in ALLOWED:
            lines.setdefault((word, file), []).append(line)
    return lines


def is_pending(word, file):
    return any(word == name and fnmatch.fnmatch(file, pattern) for name, pattern in PENDING)


def test_retired_words_do_not_come_back():
    new_names = {word: name for names in (INVENTED, *COMMON.values()) for word, name in names.items()}
    found = []
    for (word, file), lines in sorted(uses().items()):
        sentence = f"{file}:{lines[0]}: {word} is called {new_names[word]} ({len(lines)} uses)"
        if is_pending(word, file):
            print("pending:", sentence)
        else:
            found.append(sentence)
    assert not found, "\n".join(found)


def test_every_rule_applies_to_a_file():
    """A module that moves takes its rule along; an exception that nobody needs is removed."""
    assert [pattern for pattern in COMMON if not files_of(pattern)] == []
    present = {(word, file) for word, file, _ in (*invented_uses(), *common_uses())}
    assert ALLOWED - present == set()


def test_the_search_reads_names_not_prose():
    python = "class Part:  # the Plan\n    text = 'left'\n"
    assert [name for _, name in python_names(python)] == ["class", "Part", "text"]
    cpp = '// keep\nint turn = 1; /* Room\n*/ const char* s = "Bound";\n'
    assert [name for _, name in other_names(cpp)] == ["int", "turn", "const", "char", "s"]
    assert list(other_names(cpp))[1] == (2, "turn")
