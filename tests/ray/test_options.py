# mypy: disable-error-code="comparison-overlap,union-attr"
"""`Ray`: bad options are named, a missing extra too, and nobody pays for what is not used."""

import importlib.util
import subprocess
import sys

import pytest

from headgate import Child, Consumer, OptionError, Process, Ray


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("group", ""),
        ("address", 6379),
        ("address", "ray://head:10001"),
        ("num_cpus", -1),
        ("num_cpus", True),
        ("num_gpus", "one"),
        ("num_gpus", float("nan")),
        ("memory", "4GB"),
        ("resources", ["lab"]),
        ("resources", {"lab": -1}),
        ("runtime_env", "pip"),
        ("name", ""),
        ("namespace", 3),
        ("ports", 20_000),
        ("ports", (20_000,)),
        ("ports", (20_100, 20_000)),
        ("ports", (0, 70_000)),
        ("ports", True),
        ("ports", 0),
        ("ports", "none"),
        ("start_timeout", 0),
        ("start_timeout", float("inf")),
        ("max_bytes", 0),
        ("budget", 1.5),
    ],
)
def test_a_bad_option_is_named(option, value):
    with pytest.raises(OptionError, match=rf"Ray: expected option '{option}' to be .*got: ") as caught:
        Ray(**{option: value})
    assert repr(value) in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    with pytest.raises(OptionError, match=r"headgate\[ray\]"):
        Ray()


def test_places_that_are_alike_are_equal():
    assert Ray(num_cpus=2, resources={"lab": 1}) == Ray(num_cpus=2, resources={"lab": 1})
    assert Ray() != Ray(num_gpus=1)
    assert Ray() != Ray(ports=False)
    assert Ray() != Process()


def test_a_child_takes_it():
    class Any(Consumer):
        def handle_events(self, events, source):
            pass

    assert Child(Any, place=Ray(group="a")).place.word == "ray"


def test_nobody_pays_for_what_is_not_used():
    code = (
        "import sys; import headgate; headgate.Ray(); import headgate.runtime.hub, headgate.worker;"
        "sys.exit('ray' in sys.modules or 'headgate.runtime.ray_place' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
