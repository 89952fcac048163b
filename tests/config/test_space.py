from wafer_lab.config.space import Entry, override, probes, read_space


def told(space):
    return [str(problem) for problem in read_space(space)[1]]


def test_a_list_is_a_choice_and_null_leaves_a_key_out():
    entries, found = read_space({"loss": ["focal", "ldam"], "seed": None})
    assert found == []
    assert entries == [Entry("loss", "choice", choices=("focal", "ldam"))]


def test_every_mistake_of_an_entry_is_told():
    number = {"type": "float", "low": 1, "high": 2}
    cases = {
        "study.space.a: must be a list of choices or {type: float, low: ..., high: ...}, not 3": 3,
        "study.space.a: has no type; choose one of choice, float, int": {"low": 1},
        "study.space.a: has the type flot; did you mean float?": {"type": "flot"},
        "study.space.a: takes no hight; did you mean high?": number | {"hight": 2},
        "study.space.a: needs high, a number": {"type": "float", "low": 1},
        "study.space.a: low must be a whole number, not 0.5": {"type": "int", "low": 0.5, "high": 2},
        "study.space.a: low=2 must be less than high=1": number | {"low": 2, "high": 1},
        "study.space.a: low=0 must be greater than 0 where log is true": number | {"low": 0, "log": True},
        "study.space.a: cannot have both log and step; drop one": number | {"log": True, "step": 0.5},
        "study.space.a: step=0 must be greater than 0": number | {"step": 0},
        "study.space.a: from low=1 to high=2 must be a whole number of steps of 0.3": number | {"step": 0.3},
        "study.space.a: log must be true or false, not 'yes'": number | {"log": "yes"},
        "study.space.a: needs choices, a list of two or more; a single value belongs on the command line": [1],
        "study.space.a: names a choice twice; name each once": [1, 1],
        "study.space.a: cannot choose [1]; choices are texts, numbers, true, false and null": [[1], 2],
        "study.space.a: when must be of the form {loss: focal}, not 'focal'": number | {"when": "focal"},
        "study.space: is empty; name the keys to search, as in conf/study/lr_wd.yaml": None,
    }
    for message, spec in cases.items():
        assert told({"a": spec}) == [message]


def test_conditions_that_cannot_hold_are_told():
    gamma = {"type": "float", "low": 0, "high": 2}
    loss = ["focal", "ldam"]
    assert told({"loss": loss, "g": gamma | {"when": {"loss": "focl"}}}) == [
        "study.space.g.when: loss is never 'focl'; did you mean focal?"
    ]
    assert told({"loss": gamma, "g": gamma | {"when": {"loss": 1}}}) == [
        "study.space.g.when: loss is sampled from a range; a condition needs one that has choices"
    ]
    circle = {"a": {"type": "choice", "choices": [1, 2], "when": {"b": 1}}}
    circle |= {"b": {"type": "choice", "choices": [1, 2], "when": {"a": 1}}}
    assert "conditions go round in a circle" in told(circle)[0]


def test_entries_come_after_what_they_ask_about():
    gamma = {"type": "float", "low": 0, "high": 2, "when": {"loss": ["focal"]}}
    entries, _ = read_space({"loss.gamma": gamma, "loss": ["focal", "ldam"]})
    assert [entry.key for entry in entries] == ["loss", "loss.gamma"]
    by_key = {entry.key: entry for entry in entries}
    assert entries[1].follows({"loss": "focal"}, by_key)
    assert not entries[1].follows({"loss": "ldam"}, by_key)
    assert not entries[1].follows({}, by_key)  # its parent was not sampled itself
    assert entries[1].follows({}, {})  # a fixed value, found to hold beforehand


def test_probes_hold_every_choice_and_both_ends():
    gamma = {"type": "float", "low": 0.5, "high": 2, "when": {"loss": "focal"}}
    entries, _ = read_space({"model": ["a", "b"], "loss": ["focal", "ldam"], "loss.gamma": gamma})
    rows = list(probes(entries))
    assert {(row["model"], row["loss"]) for row in rows} == {(m, o) for m in "ab" for o in ("focal", "ldam")}
    assert all(("loss.gamma" in row) == (row["loss"] == "focal") for row in rows)
    only, _ = read_space({"lr": {"type": "float", "low": 1, "high": 2}})
    assert list(probes(only)) == [{"lr": 1}, {"lr": 2}]
    many, _ = read_space({f"k{i}": list(range(7)) for i in range(4)})
    rows = list(probes(many))
    assert len(rows) == 7
    assert all({row[f"k{i}"] for row in rows} == set(range(7)) for i in range(4))


def test_values_of_a_grid():
    entries, _ = read_space(
        {
            "a": {"type": "int", "low": 64, "high": 192, "step": 64},
            "b": {"type": "float", "low": 0, "high": 1, "step": 0.5},
            "c": {"type": "float", "low": 1, "high": 2},
        }
    )
    assert [entry.values() for entry in entries] == [[64, 128, 192], [0, 0.5, 1], None]


def test_an_override_is_read_back_as_it_was():
    from wafer_lab.config.diagnose import parse

    for value in (0.001, 1e-05, 3, True, None, "focal", "a b", "it's", "1x", "a,b", "x=y", "c:\\d"):
        assert parse(override("loss.name", value)).value() == value
