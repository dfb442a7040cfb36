"""The device and number format are what was asked, or what fits the machine."""

import pytest
import torch

from engines.devices import choose_device, cpu_threads
from studio.domain.errors import InvalidRequest


def test_what_is_asked_is_used() -> None:
    device = choose_device("cpu", "bfloat16")
    assert (device.name, device.dtype) == ("cpu", torch.bfloat16)


def test_automatic_choice_is_the_same_every_time() -> None:
    assert {choose_device("cpu").dtype for _ in range(5)} in ({torch.float32}, {torch.bfloat16})


def test_unknown_names_are_refused_with_what_is_available() -> None:
    with pytest.raises(InvalidRequest, match="Available: auto"):
        choose_device("tpu")
    with pytest.raises(InvalidRequest, match="float32"):
        choose_device("cpu", "int3")


def test_threads_are_lent_and_given_back_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="x"), cpu_threads(1):
        assert torch.get_num_threads() == 1
        raise ValueError("x")
    assert torch.get_num_threads() == before
    with cpu_threads(None):
        assert torch.get_num_threads() == before
