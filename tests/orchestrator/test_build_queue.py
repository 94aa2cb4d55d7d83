"""Builds are given out once what they read is there, and nothing waits for what it does not read."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.build_queue import Build, BuildQueue
from orchestrator.storage.failures import note_failure
from orchestrator.storage.stages import MANIFEST, Stage
from orchestrator.training.job import Job
from orchestrator.training.workers import WorkersConfig


def build_of(storage: Path, *names: str, reads: tuple[str, ...] = ()) -> Build:
    inputs = {f"input{number}": name for number, name in enumerate(reads)}
    stages = [Stage(name, "finetune", {}, inputs) for name in names]
    share = {"workers": WorkersConfig(), "threads": 1, "cpus": 1.0, "use_gpu": False, "provenance": {}}
    return Build([Job(stage=stage, experiment={}, storage=storage, sweep="mine", **share) for stage in stages])  # type: ignore[arg-type]


def finish(build: Build) -> None:
    for job in build.jobs:
        folder = job.store.path(job.stage.stage_id)
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(json.dumps({"files": {}}))


def names_of(build: Build | None) -> list[str] | None:
    return build and build.stage_ids


def test_a_student_starts_while_another_teacher_is_still_being_trained(tmp_path: Path) -> None:
    first, second = build_of(tmp_path, "teacher0"), build_of(tmp_path, "teacher1")
    student = build_of(tmp_path, "student0", reads=("teacher0",))
    queue = BuildQueue([first, second, student])
    assert [names_of(queue.next()) for _ in range(3)] == [["teacher0"], ["teacher1"], None]
    finish(first)
    assert queue.end(first.jobs[0]) == ["teacher0"]
    assert names_of(queue.next()) == ["student0"]


def test_what_is_ready_is_given_out_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    queue = BuildQueue([build_of(tmp_path, name) for name in "cab"])
    assert [names_of(queue.next()) for _ in range(4)] == [["c"], ["a"], ["b"], None]
    assert queue.num_waiting == 0


def test_what_nobody_builds_is_there_already(tmp_path: Path) -> None:
    assert names_of(BuildQueue([build_of(tmp_path, "student", reads=("kept",))]).next()) == ["student"]


def test_the_message_of_a_failure_goes_to_the_readers_of_its_readers_and_to_no_others(tmp_path: Path) -> None:
    teacher, other = build_of(tmp_path, "teacher"), build_of(tmp_path, "other")
    states = build_of(tmp_path, "states1", "states2", reads=("teacher",))
    student = build_of(tmp_path, "student", reads=("states1", "states2"))
    queue = BuildQueue([teacher, other, states, student])
    queue.next()
    note_failure(teacher.jobs[0].failure_file, ValueError("no teacher today"))
    assert queue.end(teacher.jobs[0]) == []
    assert queue.failures["teacher"] == "ValueError: no teacher today"
    assert queue.failures["student"].startswith("student: its input states1 failed: states1: its input teacher failed")
    assert queue.failures.keys() == {"teacher", "states1", "states2", "student"}
    assert names_of(queue.next()) == ["other"]
    assert queue.num_waiting == 0


def test_a_build_that_left_neither_stage_nor_word_has_failed(tmp_path: Path) -> None:
    build = build_of(tmp_path, "lost")
    queue = BuildQueue([build])
    queue.next()
    queue.end(build.jobs[0])
    assert queue.failures == {"lost": "lost: it was not built, and nothing says why."}


def test_the_message_of_an_earlier_attempt_is_gone_when_the_next_one_begins(tmp_path: Path) -> None:
    build = build_of(tmp_path, "again")
    note_failure(build.jobs[0].failure_file, ValueError("yesterday"))
    queue = BuildQueue([build])
    queue.next()
    assert not build.jobs[0].failure_file.exists()


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[str, tuple[str, ...]]]:
    """Names in an order in which none stands before one that it reads, with what they read."""
    reads = [draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set() for number in range(8)]
    size = draw(st.integers(1, 8))
    return [(f"s{number}", tuple(f"s{read}" for read in sorted(reads[number]))) for number in range(size)]


@settings(max_examples=60, deadline=None)
@given(graph=graphs(), slots=st.integers(1, 3), data=st.data())
def test_whatever_reads_whatever_all_is_built_or_told(
    tmp_path_factory: pytest.TempPathFactory, graph: list[tuple[str, tuple[str, ...]]], slots: int, data: st.DataObject
) -> None:
    storage = tmp_path_factory.mktemp("queue")
    builds = {name: build_of(storage, name, reads=reads) for name, reads in graph}
    queue = BuildQueue(list(builds.values()))
    running: list[Build] = []
    built: set[str] = set()
    while queue.num_waiting or running:
        while len(running) < slots and (build := queue.next()) is not None:
            assert build.inputs <= built
            running.append(build)
        assert running, "nothing runs and nothing can be started"
        over = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if data.draw(st.booleans()):
            finish(over)
        built |= set(queue.end(over.jobs[0]))
    assert built.isdisjoint(queue.failures)
    assert built | queue.failures.keys() == builds.keys()
