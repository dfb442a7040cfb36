"""What was computed last, for whoever asks again and again."""

from collections.abc import Callable
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class Recent(Generic[ValueT]):
    """A value for each of the `most` keys that came last, good as long as the state that it was made from."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._kept: dict[str, tuple[object, ValueT]] = {}

    def get(self, key: str, state: object, make: Callable[[], ValueT]) -> ValueT:
        """That of `key`, made anew where `state` is another one. Several threads may ask: each leaves a whole dict."""
        kept = self._kept.get(key)
        if kept is None or kept[0] != state:
            kept = state, make()
            others = {name: each for name, each in self._kept.items() if name != key}
            self._kept = {**dict(list(others.items())[1 - self._most :]), key: kept}
        return kept[1]
