"""The store: what is stored is read back, once and whole, and each state has one meaning."""

from __future__ import annotations

import math
import os
import shutil

import pytest
from storing import GOLDEN, filled, owned, record, run

from netwright.bench import records
from netwright.bench.records import Cost, Score
from netwright.bench.store import database
from netwright.bench.store.database import examine
from netwright.bench.store.store import Store
from netwright.core.canonical import canonical_json, digest, parse
from netwright.core.errors import BadInput

# -- canonical JSON


def test_canonical_json_is_one_text_for_one_value_and_reads_back():
    value = {"b": [1, 2.5, None, True, "é\ud800"], "a": {"nan": math.nan, "x": -math.inf, "y": "nan"}, "c": 1e-300}
    text = canonical_json(value)
    assert text == canonical_json(dict(reversed(value.items()))) and text.isascii() and " " not in text
    assert text.startswith('{"a":{"nan":{"$float":"nan"},"x":{"$float":"-inf"},"y":"nan"}')
    back = parse(text)
    assert math.isnan(back["a"]["nan"]) and back["a"]["x"] == -math.inf and back["a"]["y"] == "nan"
    assert canonical_json(back) == text
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1.0, "b": 2})
    assert digest((1, 2)) == digest([1, 2])


def test_canonical_json_takes_array_scalars_and_refuses_what_has_no_one_text():
    np = pytest.importorskip("numpy")
    assert canonical_json([np.float64(0.5), np.int64(3), np.float32("nan")]) == '[0.5,3,{"$float":"nan"}]'
    for wrong in ({1, 2}, b"x", object(), {1: "a", "1": "b"}, {"$float": "x"}):
        with pytest.raises(BadInput):
            canonical_json(wrong)


# -- round trips


def test_everything_stored_is_read_back_by_the_owner_by_a_reader_and_after_a_restart(tmp_path):
    made = filled(tmp_path)
    odd = record(run(30), curve=((1, math.nan, math.inf), (2, 0.5, -math.inf)), best_val=None, bad_step=2, error="nan")
    made.add_runs([run(30)])
    assert made.finish([odd]) == ("key-a-30",)

    def check(of: Store) -> None:
        found = {r.key: r for r in of.records()}
        assert len(found) == 31 and found["key-a-7"] == record(run(7), error="x" * 300)
        (s1, l1, v1), (s2, l2, v2) = found["key-a-30"].curve
        assert (s1, s2) == (1, 2) and math.isnan(l1) and v1 == math.inf and l2 == 0.5 and v2 == -math.inf
        assert found["key-a-30"].error == "nan" and found["key-a-30"].best_val is None
        assert of.weights("key-a-3") == b"\x03" * 9000 and of.weights("key-a-4") is None
        assert of.runs()[7] == run(7)
        assert [s.value for s in of.scores() if s.seed < 10] == [0.5 + seed for seed in range(10)]
        assert of.costs() == (Cost("a", params=7, step_quartiles=(0.1, 0.2), widths=(8, 8)),)
        assert of.plan() == {"engine": "loop", "runs": 30} and of.notes() == ("not tuned",)
        assert of.looks() == (tuple(range(10)),) and of.study == "study-1" and of.request == '{"task":"toy"}'
        ((environment, keys),) = of.environments()
        assert environment["cpu"] == "one" and len(keys) == 31

    check(made)
    reader = Store.read(tmp_path)
    check(reader)
    owner = reader.owner()
    assert owner is not None and owner.pid == os.getpid()
    made.close()
    check(Store.read(tmp_path))
    assert Store.read(tmp_path).owner() is None
    with owned(tmp_path) as again:
        check(again)


def test_a_clean_close_leaves_one_file_that_can_be_copied(tmp_path):
    filled(tmp_path / "s").close()
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [database.LOCK, database.FILE]
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "s" / database.FILE, tmp_path / "copy")
    assert len(Store.read(tmp_path / "copy").records()) == 30


def test_export_copies_a_running_study_and_overwrites_nothing(tmp_path):
    with filled(tmp_path / "s") as made:
        (tmp_path / "out").mkdir()
        made.export(tmp_path / "out" / database.FILE)
        assert [p.name for p in (tmp_path / "out").iterdir()] == [database.FILE]
        assert Store.read(tmp_path / "out").records() == made.records() and examine(tmp_path / "out") == []
        with pytest.raises(BadInput, match="exists"):
            made.export(tmp_path / "out" / database.FILE)


def test_looks_count_new_sets_of_seeds_only(tmp_path):
    with owned(tmp_path) as made:
        assert [made.add_look(s) for s in ((1, 2), (2, 1), (1, 2, 3), (1, 2), (1, 2, 3))] == [1, 1, 2, 1, 2]
    with owned(tmp_path) as made:
        assert made.add_look((3, 2, 1)) == 2 and made.add_look((1,)) == 3


def test_mixed_environments_show(tmp_path):
    with filled(tmp_path, 3) as made:
        made.set_environment({"torch": "2.1", "cpu": "one"})
        made.add_runs([run(3), run(4)])
        made.finish([record(run(3))])
        assert [len(keys) for _, keys in made.environments()] == [3, 1]


# -- states


def test_what_each_state_becomes_on_the_next_call(tmp_path):
    made = owned(tmp_path)
    runs = {state: run(i) for i, state in enumerate(records.STATES)}
    made.add_runs(runs.values())
    made.lease(runs[s].key for s in ("leased", "running"))
    made.start([runs["running"].key])
    made.cancel([runs["cancelled"].key])
    made.finish([record(runs[s], s) for s in ("done", "diverged", "oom", "timeout", "failed", "lost")])
    made.supersede([r.key for s, r in runs.items() if s != "superseded"])
    assert made.states() == {r.key: s for s, r in runs.items()}
    made.close()
    with owned(tmp_path) as again:
        kept = {"done", "diverged", "timeout", "failed", "superseded"}
        assert again.states() == {r.key: s if s in kept else "queued" for s, r in runs.items()}
        assert {r.state for r in again.records()} == kept - {"superseded"}


def test_a_run_that_was_lost_three_times_stays_lost_with_a_record_until_redone(tmp_path):
    with owned(tmp_path) as made:
        made.add_runs([run(0)])
        key = run(0).key
        for n in range(1, 4):
            assert made.lease([key]) == (key,)
            assert made.requeue([key], lost=True) == ((key,) if n < 3 else ())
        assert made.states() == {key: "lost"}
        assert [(r.key, r.state) for r in made.records()] == [(key, "lost")] and "3 times" in made.records()[0].error
    with owned(tmp_path) as again:
        assert again.states() == {key: "lost"}
        assert again.requeue([key], redo=True) == (key,) and again.records() == ()


def test_a_key_has_exactly_one_result(tmp_path):
    with owned(tmp_path) as made:
        made.add_runs([run(0), run(1)])
        key = run(0).key
        made.lease([key])
        made.requeue([key], lost=True)
        assert made.lease([key, key, run(1).key]) == (key, run(1).key) and made.lease([key]) == ()
        assert made.finish([record(run(0), best_val=1.0)]) == (key,)
        assert made.finish([record(run(0), best_val=2.0), record(run(1))], {key: b"late"}) == (run(1).key,)
        assert made.finish([record(run(0), "oom")]) == () and made.requeue([key], lost=True) == ()
        assert made.records()[0].best_val == 1.0 and made.weights(key) is None and made.cancel([key]) == ()


def test_a_crash_of_the_machinery_gives_way_to_a_result(tmp_path):
    with owned(tmp_path) as made:
        made.add_runs([run(0)])
        made.finish([record(run(0), "oom")])
        assert made.finish([record(run(0), "diverged")]) and made.records()[0].state == "diverged"


def test_a_stack_is_stored_whole_or_not_at_all(tmp_path):
    with owned(tmp_path) as made:
        made.add_runs([run(0), run(1)])
        with pytest.raises(BadInput, match="no run with the key"):
            made.finish([record(run(0)), record(run(5))], {run(0).key: b"w"})
        assert set(made.states().values()) == {"queued"} and made.weights(run(0).key) is None
        with pytest.raises(BadInput, match="can't end 'running'"):
            made.finish([record(run(0)), record(run(1), "running")])
        assert made.records() == ()


def test_superseded_records_never_mix_and_come_back_when_their_key_does(tmp_path):
    old, new = [run(0), run(1), run(2)], [run(i, key=f"new-{i}") for i in range(3)]
    with owned(tmp_path) as made:
        made.add_runs(old)
        made.finish([record(r) for r in old])
        made.put_score(Score("a", 0, 1, 0.5))
        made.put_cost(Cost("a"))
        assert made.add_runs(new) == tuple(r.key for r in new)
        assert set(made.supersede({r.key for r in new})) == {r.key for r in old}
        assert made.records() == () and made.scores() == () and made.costs() == ()
        assert len(made.records(superseded=True)) == 3 and made.finish([record(old[0])]) == ()
        assert made.add_runs(old) == ()
        made.supersede({r.key for r in old})
        assert made.records() == tuple(record(r) for r in old) and made.scores() == (Score("a", 0, 1, 0.5),)


def test_adding_runs_again_changes_nothing_and_a_key_means_one_run(tmp_path):
    with filled(tmp_path) as made:
        before = made.records()
        assert made.add_runs([run(i) for i in range(33)]) == tuple(run(i).key for i in range(30, 33))
        assert made.records() == before
        with pytest.raises(BadInput, match="names two runs"):
            made.add_runs([run(0, key="key-a-1")])


def test_wrong_arguments_are_named(tmp_path):
    with owned(tmp_path) as made:
        with pytest.raises(BadInput, match="no state is called 'finished'"):
            made.runs("finished")
        with pytest.raises(BadInput, match="can't be stored"):
            made.add_runs([run(0, seed=2**70)])
        with pytest.raises(BadInput, match="can't be stored"):
            made.note("half a character \ud800")
        assert made.runs() == ()


# -- files of earlier releases


def test_files_of_schema_1_open_in_this_release(tmp_path):
    shutil.copy(GOLDEN, tmp_path / database.FILE)
    assert examine(tmp_path) == []
    for opened in (Store.read(tmp_path), owned(tmp_path)):
        assert [r.key for r in opened.records()] == ["key-a-0", "key-a-1", "key-a-2"]
        assert opened.records()[1] == record(run(1), error="x" * 300)
        assert opened.states()["key-a-9"] == "queued" and opened.runs()[3] == run(9)
        assert opened.weights("key-a-0") == b"\0" * 9000 and opened.scores() == (Score("a", 0, 0, 0.5),)
        assert opened.costs() == (Cost("a", params=7, step_quartiles=(0.1, 0.2), widths=(8, 8)),)
        assert opened.plan() == {"engine": "loop", "runs": 3} and opened.looks() == ((0,),)
        assert opened.notes() == ("not tuned",) and opened.study == "study-1"
    opened.close()


def test_runs_take_other_keys_with_all_that_hangs_on_them(tmp_path):
    with owned(tmp_path) as store:
        runs = [run(i) for i in range(3)]
        store.add_runs(runs)
        store.put_plan({"parts": {"a": "old", "b": "kept"}})
        store.finish([record(r) for r in runs[:2]], {runs[0].key: b"weights"})
        by_place = {(r.arm, r.seed): r for r in runs[:2]}
        for (arm, seed), r in by_place.items():
            store.put_score(Score(arm, seed, r.trial, 0.5, key=r.key))
        before = {(s.arm, s.seed, s.value) for s in store.scores()}
        names = {r.key: f"new-{r.key}" for r in runs}
        assert store.rekey(names, {"a": "new"}) == 3
        assert {r.key for r in store.runs()} == set(names.values()) and len(store.records()) == 2
        assert {r.key for r in store.records()} == {f"new-{r.key}" for r in runs[:2]}
        assert store.weights(f"new-{runs[0].key}") == b"weights" and store.weights(runs[0].key) is None
        assert {(s.arm, s.seed, s.value) for s in store.scores()} == before != set()
        assert all(s.key in names.values() for s in store.scores())
        assert store.plan() == {"parts": {"a": "new", "b": "kept"}}
        assert store.add_runs([run(i) for i in range(3)]) == tuple(r.key for r in runs), "the old keys are free"
    assert not examine(tmp_path)
