"""Labeled sequences: validation, selection and splits, and the readers that return them."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_seqzoo.data import (
    LabeledSequences,
    read_conll,
    read_conllu,
    read_labeled_csv,
    read_labeled_sequences,
    read_seq_in_out,
    read_ts,
)
from keras_seqzoo.data.io.csv_labels import split_words
from keras_seqzoo.errors import ArgumentError, DataError, SeqZooError, UnknownArgumentError

# All hypothesis examples of a test share one folder and overwrite the same file.
CHECKS = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Characters that other tools treat as whitespace or line ends, and our readers do not.
UNICODE_SPACES = "\u00a0\u2009\u2028\x85\x0b\x0c\x1c\ufeff"
CELL = st.text(
    st.sampled_from("abÄж字#\"',:-_" + UNICODE_SPACES)
    | st.characters(exclude_categories=("Cs", "Cc", "Z"), exclude_characters="\ufeff"),
    min_size=1,
    max_size=6,
).filter(lambda text: not text.startswith(("\ufeff", "-DOCSTART-")))
TAG = st.sampled_from(["O", "B-a", "I-a", "B-b"])
SENTENCES = st.lists(st.lists(st.tuples(CELL, TAG), min_size=1, max_size=5), min_size=1, max_size=6)

CONLLU = """# sent_id = first
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\tv\tMood=Imp|Number=Plur\t0\troot\t_\tEntity=O
2\tnos\tnosotros\tPRON\tp\tCase=Acc|Number=Plur\t1\tobj\t_\t_
2.1\tya\tya\tADV\t_\t_\t_\t_\t_\t_
3\tNew York\tNew York\tPROPN\tn\t_\t1\tobl\t_\tEntity=B-LOC|SpaceAfter=No

# sent_id = second
1\t_\t_\tSYM\tx\t_\t0\troot\t_\t_
"""
CONLL = """-DOCSTART- -X- O

EU NNP B-ORG
rejects VBZ O

Peter NNP B-PER
"""
TS = """#A comment
@problemName Toy
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
@data
1,2,3:4,5,6.5:up
7:8e0:down
"""


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a text or bytes to a file and returns its path."""

    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_file


def as_tuples(lists):
    return tuple(tuple(part) for part in lists)


# ---------------------------------------------------------------- LabeledSequences


def test_labeled_sequences_keep_their_fields():
    text = LabeledSequences(
        [["play", "jazz"], []], labels=["p", "q"], tags=[["O", "B"], []], notes=["n"], source="s"
    )
    assert (text.sequences, text.labels) == ((("play", "jazz"), ()), ("p", "q"))
    assert (text.tags, text.unique_tags, text.unique_labels) == (
        (("O", "B"), ()),
        ("B", "O"),
        ("p", "q"),
    )
    assert (len(text), text.lengths.tolist(), text.has_tokens, text.features) == (
        2,
        [2, 0],
        True,
        None,
    )
    assert repr(text) == "LabeledSequences(2 sequences of tokens, 2 labels, 2 tags; from s)"


def test_labeled_readings_are_float32_with_one_number_of_features():
    record = LabeledSequences([[1, 2, 3], np.ones((2, 1))])
    np.testing.assert_equal([array.dtype for array in record.sequences], [np.float32] * 2)
    np.testing.assert_array_equal(record.sequences[0], [[1], [2], [3]])
    assert (record.features, record.lengths.tolist(), record.has_tokens) == (1, [3, 2], False)
    assert repr(record) == "LabeledSequences(2 sequences of readings of 1 features; from memory)"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"sequences": []}, "at least one sequence"),
        ({"sequences": ["play jazz"]}, "Split texts into tokens"),
        ({"sequences": [["a"], [1.0]]}, "sequence 1 of the other kind"),
        ({"sequences": [[1.0], ["a"]]}, "sequence 1 of the other kind"),
        ({"sequences": [np.ones((2, 3)), np.ones((2, 2))]}, "sequence 1 with 2"),
        ({"sequences": [np.ones((2, 3, 1))]}, r"sequence 0 of shape \(2, 3, 1\)"),
        ({"sequences": [[[1.0], [1.0, 2.0]]]}, "sequence 0 of shape"),
        ({"sequences": [[True, False]]}, "dtype bool"),
        ({"sequences": [[1.0], [float("nan")]]}, "infinity in sequence 1"),
        ({"sequences": [[1e300]]}, "finite in float32"),
        ({"sequences": [["a"]], "labels": ["p", "q"]}, "one per sequence, 1 in all"),
        ({"sequences": [["a"]], "labels": [""]}, "'' for sequence 0"),
        ({"sequences": [["a"]], "labels": [3]}, "3 for sequence 0"),
        ({"sequences": [["a"]], "tags": []}, "list per sequence, 1 in all"),
        ({"sequences": [["a"], ["b", "c"]], "tags": [["O"], ["O"]]}, "1 tags for the 2 steps"),
        ({"sequences": [["a"]], "tags": [[""]]}, "non-empty strings"),
        ({"sequences": [["a"]], "tags": [[None]]}, "non-empty strings"),
    ],
)
def test_labeled_sequences_reject_inconsistent_fields(parts, message):
    with pytest.raises(DataError, match=message):
        LabeledSequences(**parts)


def test_take_selects_sequences_with_their_labels_and_tags():
    text = LabeledSequences(
        [["a"], ["b", "b"], ["c"]], labels=["A", "B", "C"], tags=[["x"], ["y", "z"], ["w"]],
        notes=("seen",), source="here",
    )  # fmt: skip
    taken = text.take([2, 1])
    assert taken.sequences == (("c",), ("b", "b"))
    assert (taken.labels, taken.tags) == (("C", "B"), (("w",), ("y", "z")))
    assert (taken.notes, taken.source) == (("seen",), "here")
    unlabeled = LabeledSequences([["a"], ["b"]]).take([1])
    assert (unlabeled.labels, unlabeled.tags) == (None, None)
    for indices in ([3], [-1], [], [0.0], [[1]], 1, [True, False, True]):
        with pytest.raises(DataError, match=r"`indices` must|at least one"):
            text.take(indices)


@CHECKS
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32),
)
def test_split_is_stratified_by_label_and_keeps_every_sequence(sizes, fraction, seed):
    labels = [f"l{index}" for index, size in enumerate(sizes) for _ in range(size)]
    text = LabeledSequences([[str(index)] for index in range(len(labels))], labels=labels)
    expected = [round(size * fraction) for size in sizes]
    if sum(expected) in (0, len(labels)):
        with pytest.raises(ArgumentError, match="fraction"):
            text.split(fraction, seed=seed)
        return
    first, second = text.split(fraction, seed=seed)
    assert [second.labels.count(f"l{index}") for index in range(len(sizes))] == expected
    indices = [[int(token) for (token,) in part.sequences] for part in (first, second)]
    assert sorted(indices[0] + indices[1]) == list(range(len(labels)))
    assert [sorted(part) for part in indices] == indices
    assert [part.labels for part in (first, second)] == [
        tuple(labels[index] for index in part) for part in indices
    ]


def test_split_is_determined_by_the_seed():
    text = LabeledSequences([[str(index)] for index in range(60)])
    parts = [text.split(0.5, seed=seed)[1].sequences for seed in (1, 1, 2)]
    assert parts[0] == parts[1] != parts[2]
    with pytest.raises(ArgumentError, match="seed"):
        text.split(0.5, seed=-1)


# ---------------------------------------------------------------- every reader


READERS = {
    "a.conllu": (read_conllu, CONLLU),
    "a.conll": (read_conll, CONLL),
    "a.csv": (read_labeled_csv, 'text,label\n"One, two",p\nthree,q\n'),
    "seq.in": (read_seq_in_out, "play jazz\nstop\n"),
    "a.ts": (read_ts, TS),
}


@pytest.mark.parametrize("name", READERS)
def test_readers_accept_a_byte_order_mark_and_windows_line_ends(write, name):
    reader, text = READERS[name]
    plain = reader(write(name, text))
    assert plain.source == str(write(name, text))
    for changed in ("\ufeff" + text, text.replace("\n", "\r\n"), text.removesuffix("\n")):
        other = reader(write(name, changed))
        np.testing.assert_equal(other.sequences, plain.sequences)
        assert (other.labels, other.tags, other.notes) == (plain.labels, plain.tags, plain.notes)


@pytest.mark.parametrize("name", READERS)
def test_readers_reject_unreadable_files_with_a_complete_message(write, name, tmp_path):
    reader, text = READERS[name]
    argument = "tokens" if reader is read_seq_in_out else "path"
    last = text.count("\n") + 1
    for content, message in (
        (None, "does not exist"),
        ("", "is empty"),
        ("\ufeff", "is empty"),
        (text.encode() + b"caf\xe9\n", f"line {last} has the byte 0xe9, which is not UTF-8"),
        (text.encode("utf-16"), "line 1 has the byte 0xff, which is not UTF-8"),
    ):
        path = tmp_path / "absent" if content is None else write(name, content)
        with pytest.raises(
            DataError, match=rf"`{argument}` must be .* Received: .*{message}.*\. \w"
        ):
            reader(path)
    for path, message in ((tmp_path, "is a directory"), ("/dev/null", "pipe or a device")):
        with pytest.raises(DataError, match=message):
            reader(path)
    for path in (None, 3, ""):
        with pytest.raises(ArgumentError, match=f"`{argument}` must be a path"):
            reader(path)


@pytest.mark.parametrize("name", READERS)
@CHECKS
@given(data=st.data())
def test_readers_of_damaged_files_raise_only_seqzoo_errors(write, name, data):
    reader, text = READERS[name]
    content = text.encode()
    cut = data.draw(st.integers(0, len(content)))
    resume = data.draw(st.integers(0, len(content)))
    garbage = data.draw(st.binary(max_size=8) | st.text("\t\n\r \"':,.@-_=|#1\0", max_size=8))
    garbage = garbage.encode() if isinstance(garbage, str) else garbage
    path = write(name, content[:cut] + garbage + content[resume:])
    try:
        read = reader(path)
    except SeqZooError:
        return
    assert len(read) >= 1


def test_importing_the_readers_loads_neither_keras_nor_conllu():
    code = (
        "import sys, keras_seqzoo.data\n"
        "print([name for name in ('keras', 'tensorflow', 'conllu') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- CoNLL-U


def test_conllu_omits_multiword_ranges_and_empty_nodes(write):
    read = read_conllu(write("a.conllu", CONLLU))
    assert read.sequences == (("Vamos", "nos", "New York"), ("_",))
    assert read.tags == (("VERB", "PRON", "PROPN"), ("SYM",))
    assert read.notes == ("Multiword ranges and empty nodes: 2 left out, all words kept.",)


@pytest.mark.parametrize(
    ("field", "tags"),
    [
        ("xpos", ("v", "p", "n")),
        ("form", ("Vamos", "nos", "New York")),
        ("head", ("0", "1", "1")),
        ("feats", ("Mood=Imp|Number=Plur", "Case=Acc|Number=Plur", "_")),
        ("feats.Case", ("_", "Acc", "_")),
        ("misc.Entity", ("O", "_", "B-LOC")),
    ],
)
def test_conllu_tags_may_come_from_any_field_or_key(write, field, tags):
    text = CONLLU.partition("\n\n")[0]
    assert read_conllu(write("a.conllu", text), field=field).tags == (tags,)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (("PRON", "_"), "upos", r"sentence 1 \(first\) has no upos at the word 'nos'"),
        (("SYM", ""), "upos", r"sentence 2 \(second\) has no upos at the word '_'"),
        (("\tp\t", "\t_\t"), "xpos", "no xpos at the word 'nos'"),
        (("\tp\t", "\t"), "upos", r"sentence 1 \(first\) has 9 fields at the word 'nos', not 10"),
        # conllu also splits fields at two spaces and ignores the last one: "York" would be a lemma.
        (("New York\tN", "New  York\tN"), "upos", "has 11 fields at the word 'New', not 10"),
        (("2\tnos", "two\tnos"), "upos", "sentence 1 cannot be read .*'two' is not a valid ID"),
        (("2\tnos", "9" * 5000 + "\tnos"), "upos", "sentence 1 cannot be read"),
        ((CONLLU, "hello\n"), "upos", "sentence 1 cannot be read"),
        ((CONLLU, "# nothing\n\n\n"), "upos", "has no word"),
        (("#", "#"), "upso", "Unknown field 'upso'. Did you mean 'upos'"),
        (("#", "#"), "id", "Unknown field 'id'"),
        (("#", "#"), "upos.Case", "Unknown field 'upos.Case'"),
        (("#", "#"), "feats.case", "Did you mean 'feats.Case'"),
        ((CONLLU, "# global.columns = ID UPOS\n1\tNOUN\n"), "upos", "in a column FORM"),
    ],
)
def test_conllu_rejects_missing_fields_and_malformed_lines(write, change, field, message):
    with pytest.raises(DataError, match=message):
        read_conllu(write("a.conllu", CONLLU.replace(*change)), field=field)


def test_conllu_plus_declares_its_columns(write):
    text = "# global.columns = ID FORM PARSEME:MWE\n1\tgive\t1\n2\tup\t2\n"
    assert read_conllu(write("a.conllup", text), field="parseme:mwe").tags == (("1", "2"),)
    with pytest.raises(DataError, match="Unknown field 'upos'"):
        read_conllu(write("a.conllup", text))


def test_conllu_error_names_the_missing_package(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "conllu", None)
    with pytest.raises(ArgumentError, match=r'pip install "keras-seqzoo\[text\]"'):
        read_conllu(write("a.conllu", CONLLU))


@pytest.mark.parametrize("field", ["", None, 3])
def test_conllu_rejects_a_field_that_is_not_a_name(write, field):
    with pytest.raises(ArgumentError, match="field"):
        read_conllu(write("a.conllu", CONLLU), field=field)


# ---------------------------------------------------------------- CoNLL columns


@CHECKS
@given(sentences=SENTENCES, separator=st.sampled_from(["\t", " ", "   "]), end=st.booleans())
def test_read_conll_round_trips_sentences(write, sentences, separator, end):
    lines = ["\n".join(f"{t}{separator}x{separator}{g}" for t, g in pairs) for pairs in sentences]
    read = read_conll(write("a.conll", "\n\n".join(lines) + "\n" * end))
    assert read.sequences == as_tuples([token for token, _ in pairs] for pairs in sentences)
    assert read.tags == as_tuples([tag for _, tag in pairs] for pairs in sentences)


def test_conll_tokens_in_files_with_tabs_may_contain_spaces(write):
    read = read_conll(write("a.bio", "New York \tB-LOC\n \t\nis\tO \n"))
    assert (read.sequences, read.tags) == ((("New York",), ("is",)), (("B-LOC",), ("O",)))


def test_conll_columns_may_be_negative(write):
    path = write("a.conll", CONLL)
    read = read_conll(path, token_column=-3, tag_column=1)
    assert read.sequences == (("EU", "rejects"), ("Peter",))
    assert read.tags == (("NNP", "VBZ"), ("NNP",))
    assert read.notes == ("1 -DOCSTART- line left out.",)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (CONLL.replace("VBZ ", ""), {}, "line 4 has 2 columns, not 3"),
        (CONLL.replace("VBZ", "VBZ VBZ"), {}, "line 4 has 4 columns, not 3"),
        ("a\tO\n\tO\n", {}, "line 2 has an empty token"),
        ("a\tO\nb\t \n", {}, "line 2 has an empty tag"),
        ("a\nb\n", {}, "must be two columns.*1 column"),
        (CONLL, {"tag_column": 3}, "`tag_column` must be one of the 3 columns"),
        (CONLL, {"token_column": -4}, "`token_column` must be one of the 3 columns"),
        (CONLL, {"tag_column": -3}, "must be two columns"),
        ("\n \t\n-DOCSTART- O\n", {}, "which contains no tokens"),
    ],
)
def test_conll_rejects_missing_columns_and_malformed_lines(write, text, options, message):
    with pytest.raises(DataError, match=message):
        read_conll(write("a.conll", text), **options)


@pytest.mark.parametrize("column", ["0", 1.0, None, True])
def test_conll_rejects_columns_that_are_not_ints(write, column):
    with pytest.raises(ArgumentError, match="tag_column"):
        read_conll(write("a.conll", CONLL), tag_column=column)


# ---------------------------------------------------------------- seq.in, seq.out and label


@CHECKS
@given(
    sentences=st.lists(st.lists(st.tuples(CELL, TAG), max_size=5), min_size=1, max_size=6),
    blank=st.sampled_from([" ", "\t", "  "]),
    end=st.sampled_from(["\n", "\r\n", " \n"]),
)
def test_read_seq_in_out_round_trips_sequences(write, sentences, blank, end):
    tokens = "".join(blank.join(token for token, _ in pairs) + end for pairs in sentences)
    tags = "".join(blank.join(tag for _, tag in pairs) + end for pairs in sentences)
    labels = "".join(f"label {len(pairs)}{end}" for pairs in sentences)
    read = read_seq_in_out(
        write("seq.in", tokens), write("seq.out", tags), labels=write("label", labels)
    )
    assert read.sequences == as_tuples([token for token, _ in pairs] for pairs in sentences)
    assert read.tags == as_tuples([tag for _, tag in pairs] for pairs in sentences)
    assert read.labels == tuple(f"label {len(pairs)}" for pairs in sentences)
    assert bool(read.notes) == ([] in sentences)


@pytest.mark.parametrize(
    ("tags", "labels", "message"),
    [
        (
            "O O\n",
            "p\nq\n",
            r"`tags` must be a file with as many lines as `tokens`, 2\..* 1 line\.",
        ),
        ("O O\nO\n\n", "p\nq\n", "which has 3 lines"),
        ("O O\nO O\n", "p\nq\n", "line 2 has 2 tags for 1 token"),
        ("O O\n\n", "p\nq\n", "line 2 has 0 tags for 1 token"),
        ("O O\nO\n", "p\n", r"`labels` must be a file with as many lines as `tokens`, 2\."),
        ("O O\nO\n", "p\n \n", "line 2 is empty"),
    ],
)
def test_read_seq_in_out_rejects_files_that_do_not_match(write, tags, labels, message):
    tokens = write("seq.in", "play jazz\nstop\n")
    with pytest.raises(DataError, match=message):
        read_seq_in_out(tokens, write("seq.out", tags), labels=write("label", labels))


# ---------------------------------------------------------------- labeled CSV


@CHECKS
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
            st.sampled_from(["none", "NA", "a, b", 'q"q', "two\nlines"]),
        ),
        min_size=1,
        max_size=5,
    ),
    separator=st.sampled_from([",", "\t", ";", "|"]),
    lower=st.booleans(),
)
def test_read_labeled_csv_detects_the_separator(write, rows, separator, lower):
    path = write("a.csv", "")
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
        table.writerows([("id", "label", "text"), *((7, label, text) for text, label in rows)])
    for chosen in (None, separator):
        read = read_labeled_csv(path, separator=chosen, lower=lower)
        assert read.labels == tuple(label for _, label in rows)
        assert read.sequences == as_tuples(split_words(text, lower=lower) for text, _ in rows)
        assert bool(read.notes) == (() in read.sequences)


@CHECKS
@given(
    text=st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("aé\u0301\u093f_9 "))
)
def test_split_words_drops_whitespace_only(text):
    words = split_words(text)
    assert "".join(words) == "".join(text.split())
    assert all(words)


def test_split_words_separates_words_and_punctuation():
    assert split_words("It's 3.5_x, OK?!") == [
        "It", "'", "s", "3", ".", "5_x", ",", "OK", "?", "!",
    ]  # fmt: skip
    assert split_words("हिन्दी e\u0301t\u00e9\u00a0字x", lower=True) == ["हिन्दी", "e\u0301té", "字x"]
    assert split_words("ÄB", lower=True) == ["äb"]
    assert split_words("\u2764\ufe0f, \u0301") == ["\u2764\ufe0f", ",", "\u0301"]
    with pytest.raises(ArgumentError, match="text"):
        split_words(3)


def test_read_labeled_csv_with_a_given_separator(write):
    read = read_labeled_csv(write("a.dat", "Text~Label\nGood~pos\n"), text="Text", label="Label",
                         separator="~")  # fmt: skip
    assert (read.sequences, read.labels) == ((("Good",),), ("pos",))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("txt,label\na,p\n", "Unknown column 'text'. Did you mean 'txt'"),
        ("text,lable\na,p\n", "Unknown column 'label'. Did you mean 'lable'"),
        ("text,label,text\na,p,b\n", "header has 'text' 2 times"),
        ("text,label\na,p\nb, \n", "row 2 below the header, line 3, has no label"),
        ('text,label\n"a\nb",\n', "row 1 below the header, line 3, has no label"),
        ("text,label\na,p\nb\n", "line 3 has 1 cell, not 2"),
        ("text,label\na, b,p\n", "line 2 has 3 cells, not 2"),
        ('text,label\n"a,p\n', "line 2 cannot be read"),
        ('text,label\n"a"b,p\n', "line 2 cannot be read"),
        ("text,label\n", "header only"),
        ("\n\n", "blank lines only"),
    ],
)
def test_read_labeled_csv_rejects_malformed_tables(write, table, message):
    with pytest.raises(DataError, match=message):
        read_labeled_csv(write("a.csv", table))


@pytest.mark.parametrize(
    "options",
    [
        {"text": ""}, {"label": 1}, {"label": "text"}, {"lower": 1},
        {"separator": ""}, {"separator": ",,"}, {"separator": '"'}, {"separator": "\n"},
        {"separator": 3},
    ],
)  # fmt: skip
def test_read_labeled_csv_rejects_invalid_arguments(write, options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        read_labeled_csv(write("a.csv", "text,label\na,p\n"), **options)


# ---------------------------------------------------------------- .ts


@CHECKS
@given(data=st.data(), labeled=st.booleans(), features=st.integers(1, 3))
def test_read_ts_round_trips_series(write, data, labeled, features):
    value = st.floats(-1e6, 1e6, width=32)
    case = st.integers(1, 5).flatmap(
        lambda steps: st.lists(
            st.lists(value, min_size=steps, max_size=steps), min_size=features, max_size=features
        )
    )
    cases = data.draw(st.lists(st.tuples(case, st.sampled_from("ab")), min_size=1, max_size=5))
    rows = [
        ":".join([",".join(map(repr, part)) for part in parts] + [label] * labeled)
        for parts, label in cases
    ]
    head = "@CLASSLABEL True a b" if labeled else "@classLabel false"
    read = read_ts(write("a.ts", "\n".join([head, "@Data", *rows])))
    for sequence, (parts, _) in zip(read.sequences, cases, strict=True):
        np.testing.assert_array_equal(sequence, np.array(parts, np.float32).T)
    assert read.labels == (tuple(label for _, label in cases) if labeled else None)


def test_read_ts_adds_notes_for_contradictions_of_the_header(write):
    header = TS.replace("@equalLength false", "@equalLength true\n@seriesLength 3\n@colour red")
    read = read_ts(write("a.ts", header.replace("up down", "up down left")))
    assert read.lengths.tolist() == [3, 1]
    for text in (
        "@colour is unknown", "declares equal lengths, 3; cases have 1 to 3", "label left",
    ):  # fmt: skip
        assert any(text in note for note in read.notes), read.notes
    assert not read_ts(write("a.ts", TS)).notes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7:8e0", "7:?", "line 11 has no finite value at step 1 of dimension 2.*fill the gap"),
        ("1,2,3", "1,NaN,3", "line 10 has no finite value at step 2 of dimension 1"),
        ("1,2,3", "1,inf,3", "line 10 has no finite value at step 2 of dimension 1"),
        ("1,2,3", "1,two,3", "line 10 has 'two' for a number"),
        ("1,2,3", "1,2", "line 10 has 3 values in dimension 2 and 2 in the first"),
        ("7:", "", "line 11 has 1 dimension, not 2"),
        ("7:", "7:7:", "line 11 has 3 dimensions, not 2"),
        ("@dimensions 2", "@dimensions 3", "line 10 has 2 dimensions, not 3"),
        ("@univariate false", "@univariate true", "line 10 has 2 dimensions, not 1"),
        ("@dimensions 2", "@dimensions two", "line 6 has 'two' after @dimensions"),
        (":down\n", ":donw\n", "line 11 ends in a label that is not declared.*Did you mean 'down'"),
        ("7:8e0:down", "7", "line 11 has no colon, so no label"),
        ("true up down", "true", "line 8 has @classLabel true without labels"),
        ("true up down", "maybe", "line 8 has 'maybe' after @classlabel"),
        ("@classLabel true up down\n", "", "no line @classLabel"),
        ("@classLabel true up down", "@targetLabel true", "declares numeric targets"),
        ("@timeStamps false", "@TIMESTAMPS true", "line 3 declares time stamps"),
        ("@timeStamps false", "@timeStamps", "line 3 has '' after @timestamps"),
        ("@data", "", "line 10 is neither a header line"),
        (TS.partition("@data")[2], "\n", "no case below @data"),
        ("@data" + TS.partition("@data")[2], "", "no line @data"),
    ],
)
def test_read_ts_rejects_lines_that_contradict_the_header(write, old, new, message):
    assert old in TS
    with pytest.raises(DataError, match=message):
        read_ts(write("a.ts", TS.replace(old, new)))


# ---------------------------------------------------------------- any format


@pytest.mark.parametrize("name", [*(name for name in READERS if name != "seq.in"), "a.TXT"])
def test_file_extension_selects_the_reader(write, name):
    reader, text = READERS.get(name, READERS["a.conll"])
    path = write(name, text)
    np.testing.assert_equal(read_labeled_sequences(path).sequences, reader(path).sequences)


def test_a_folder_is_read_by_read_seq_in_out(write, tmp_path):
    write("seq.in", "play jazz\nstop\n")
    with pytest.raises(DataError, match=r"neither seq\.out nor label"):
        read_labeled_sequences(tmp_path)
    write("label", "p\nq\n")
    assert (read_labeled_sequences(tmp_path).labels, read_labeled_sequences(tmp_path).tags) == (
        ("p", "q"),
        None,
    )
    write("seq.out", "O B\nO\n")
    assert read_labeled_sequences(str(tmp_path)).tags == (("O", "B"), ("O",))
    assert read_labeled_sequences(tmp_path, tags=None).tags is None
    with pytest.raises(DataError, match=r"no seq\.in"):
        read_labeled_sequences(write("other/a.txt", "").parent)


def test_format_argument_selects_the_reader(write):
    path = write("a.csv", CONLL)
    assert read_labeled_sequences(path, format="conll", tag_column=1).tags[0] == ("NNP", "VBZ")
    assert read_labeled_sequences(path, format="seq_in_out").sequences[2] == ("EU", "NNP", "B-ORG")


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("a.xml", {}, ArgumentError, "ends in .conllu.*format='conllu'.*format='ts'"),
        ("a", {}, ArgumentError, "`path` must be"),
        ("n" * 5000, {}, ArgumentError, "`path` must be"),
        ("a.conll", {"format": "conl"}, ArgumentError, "format"),
        ("a.conll", {"tag_colum": 1}, UnknownArgumentError, "Did you mean 'tag_column'"),
        ("a.conll", {"field": "upos"}, UnknownArgumentError, "option of format conll: 'field'"),
        ("a.ts", {"text": "x"}, UnknownArgumentError, "Available: none"),
        (None, {}, ArgumentError, "`path` must be a path"),
        ("absent.conll", {}, DataError, "does not exist"),
    ],
)
def test_unknown_formats_and_options_are_rejected(name, options, error, message):
    with pytest.raises(error, match=message):
        read_labeled_sequences(name, **options)
