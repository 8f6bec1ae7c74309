"""The conformance suite: what an online store has to do, as tests that any store can be put through."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from mlforge.online.base import OnlineStore
from mlforge.testing.batches import BatchTests
from mlforge.testing.entities import EntityTests
from mlforge.testing.machine import EXAMPLES, state_machine
from mlforge.testing.readers import ReaderTests
from mlforge.testing.samples import new_name
from mlforge.testing.syncs import SyncTests
from mlforge.testing.values import ValueTests


class OnlineStoreSuite(ValueTests, EntityTests, BatchTests, ReaderTests, SyncTests):
    """A pytest class to subclass, with a fixture `store` that gives the store to test.

    ```python
    class TestMyStore(OnlineStoreSuite):
        @pytest.fixture
        def store(self):
            return MemoryStore()  # yours
    ```

    Every test has names of features that nobody else has, so the store may hold other things, and one store may serve
    all tests. What is written stays there. What a store can do beyond the four methods is seen from what it does: one
    that answers `status` has to be right about it, one that answers None is not asked again.

    Attributes:
        examples: How many times the last test, a `state_machine`, begins anew.
    """

    examples = EXAMPLES

    @pytest.fixture
    def feature_name(self) -> str:
        """A feature that nobody has written."""
        return new_name()

    def test_it_does_what_a_dict_does(self, store: OnlineStore) -> None:
        machine = state_machine(lambda: store)
        run_state_machine_as_test(machine, settings=settings(machine.TestCase.settings, max_examples=self.examples))
