"""The public names: each has an example that runs, and help that reads well."""

import doctest
import inspect
import pydoc

import pytest

import svfr


def described(name: str) -> object:
    return svfr if name == "__version__" else getattr(svfr, name)  # a string has no docstring of its own


@pytest.mark.parametrize("name", svfr.__all__)
def test_examples_run(name: str) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(described(name), "svfr", globs={})
    assert any(name in line.source for line in example.examples)
    result = doctest.DocTestRunner().run(example)
    assert (result.failed, result.attempted) == (0, len([e for e in example.examples if doctest.SKIP not in e.options]))


@pytest.mark.parametrize("name", svfr.__all__)
def test_help_reads_well(name: str) -> None:
    given = described(name)
    text = pydoc.plain(pydoc.render_doc(given))
    own = inspect.getdoc(given)
    assert own
    assert own.splitlines()[0] in text
    for key, value in vars(given).items():
        if not key.startswith("_") and inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{key} says nothing"
            arguments = set(inspect.signature(value).parameters) - {"self"}
            missing = {word for word in arguments if word not in (inspect.getdoc(value) or "")}
            assert len(arguments) < 3 or not missing, f"{name}.{key}: {missing} not described"
