"""Packing: copies of functions take their places, everywhere, and are the same but for their address."""

from __future__ import annotations

import enum
import inspect
import pickle
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest

from svcd.worker_runtime.forking import packing

SOURCE = '''
import abc, functools

def plain(first, /, second: int = 2, *, third="x"):
    """It has words."""
    return first, second, third
plain.mark = [1]

def make(step):
    def add(number):
        return number + step
    return add

add_five = make(5)

def cold():
    return "cold"

class Base(abc.ABC):
    class Inner:
        def deep(self):
            return "deep"
    @abc.abstractmethod
    def must(self): ...
    def method(self):
        return "base"

class Own(Base):
    def __init__(self):
        self.number = 1
    def must(self):
        return super().method()
    @staticmethod
    def still():
        return "static"
    @classmethod
    def of(cls):
        return cls.__name__
    @property
    def value(self):
        """Its words."""
        return self.number
    @value.setter
    def value(self, number):
        self.number = number

def run():
    own = Own()
    own.value = 7
    inner = Own.Inner().deep()
    return plain(1, third=3), add_five(1), make(2)(1), own.must(), own.still(), own.of(), own.value, inner
'''
RESULT = ((1, 2, 3), 6, 3, "base", "static", "Own", 7, "deep")


@pytest.fixture
def module() -> Iterator[Any]:
    made, borrower = ModuleType("packed"), ModuleType("borrower")
    exec(SOURCE, made.__dict__)
    borrower.__dict__["borrowed"] = made.__dict__["plain"]
    sys.modules.update(packed=made, borrower=borrower)
    yield made
    del sys.modules["packed"], sys.modules["borrower"]


def packed(module: Any) -> set[Any]:
    own = {each for each in packing.codes_of(module.run) if each.co_filename == "<string>"}
    packing.pack(own)
    return own


def test_what_ran_is_met_and_nothing_is_left_behind(module: Any) -> None:
    before = sys.getprofile()
    names = {each.co_name for each in packing.codes_of(module.run)}
    assert {"run", "plain", "make", "add", "__init__", "must", "method", "still", "of", "value", "deep"} <= names
    assert "cold" not in names
    assert sys.getprofile() is before


def test_copies_do_the_same(module: Any) -> None:
    old = {name: value for name, value in vars(module).items() if type(value) is FunctionType}
    met = packed(module)
    assert module.run() == RESULT
    for name in ("plain", "make", "add_five", "run"):
        new = getattr(module, name)
        assert new is not old[name]
        assert new.__code__ == old[name].__code__
        assert id(new.__code__) not in {id(each) for each in met}
    assert module.cold is old["cold"]


def test_a_copy_has_all_that_the_function_had(module: Any) -> None:
    before = module.plain
    packed(module)
    assert inspect.signature(module.plain) == inspect.signature(before)
    for name in (
        "__name__",
        "__qualname__",
        "__module__",
        "__doc__",
        "__defaults__",
        "__kwdefaults__",
        "__annotations__",
    ):
        assert getattr(module.plain, name) == getattr(before, name)
    assert module.plain.mark is before.mark


def test_who_has_borrowed_a_function_has_the_same_copy(module: Any) -> None:
    packed(module)
    assert sys.modules["borrower"].borrowed is module.plain
    assert pickle.loads(pickle.dumps(packing.pack)) is packing.pack


def test_classes_stay_what_they_are(module: Any) -> None:
    words, abstract = module.Own.value.__doc__, module.Base.__abstractmethods__
    packed(module)
    assert module.Own.value.__doc__ == words
    assert module.Base.__abstractmethods__ == abstract
    with pytest.raises(TypeError, match="abstract"):
        module.Base()
    assert isinstance(vars(module.Own)["still"], staticmethod)
    assert isinstance(vars(module.Own)["of"], classmethod)
    assert module.Own.method is module.Base.method


def test_a_metaclass_that_minds_is_not_asked() -> None:
    class Kind(enum.Enum):
        ONE = 1

        def word(self) -> str:
            return self.name

    holder = ModuleType("holder")
    holder.__dict__["Kind"] = Kind
    sys.modules["holder"] = holder
    try:
        packing.pack(packing.codes_of(Kind.ONE.word))
    finally:
        del sys.modules["holder"]
    assert Kind.ONE.word() == "ONE"
    assert list(Kind) == [Kind.ONE]
