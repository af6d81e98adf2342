"""The words on the wire are the supervisor's own enums, and the reference page is up to date."""

from __future__ import annotations

from pathlib import Path

from svcd.protocol import messages, reference, vocabulary
from svcd.supervisor.core.actions import Outcome
from svcd.supervisor.core.events import StubPhase
from svcd.supervisor.core.preview import Verb
from svcd.supervisor.core.states import State

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


def test_words_are_those_of_the_core() -> None:
    assert tuple(state.value for state in State) == vocabulary.STATES
    assert tuple(phase.value for phase in StubPhase) == vocabulary.STUB_STATES
    assert tuple(outcome.value for outcome in Outcome) == vocabulary.OUTCOMES
    assert {verb.value for verb in Verb} == set(vocabulary.STEP_VERBS)


def test_every_message_says_its_direction() -> None:
    known = set(reference.DIRECTIONS)
    for name, cls in vars(messages).items():
        if isinstance(cls, type) and issubclass(cls, messages.Message) and cls is not messages.Message:
            assert cls.direction in known or cls.direction.startswith("part of "), name


def test_the_reference_page_is_current() -> None:
    assert PAGE.read_text() == reference.page(), "run: python -m svcd.protocol.reference > docs/protocol.md"
