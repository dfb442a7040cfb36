"""A form: the controls of a request by name, so that no handler ever counts positions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradio.components import Component

from studio.domain.request import GenerationRequest, parse_request


@dataclass(frozen=True)
class Form:
    """Controls by the field of `GenerationRequest` that they set."""

    fields: Mapping[str, Component]

    @property
    def inputs(self) -> set[Component]:
        """For a listener: Gradio then passes one dict keyed by component."""
        return set(self.fields.values())

    def values(self, data: Mapping[Component, Any]) -> dict[str, Any]:
        """What the controls say, as it is. An empty control says nothing and is left out."""
        given = {name: data[component] for name, component in self.fields.items()}
        return {name: value for name, value in given.items() if value is not None}

    def read(self, data: Mapping[Component, Any]) -> GenerationRequest:
        """The request that the controls describe.

        Raises:
            InvalidRequest: naming the control whose value does not work.
        """
        return parse_request(self.values(data))

    def __getitem__(self, name: str) -> Any:
        """The control of a field; `Any`, because gradio adds the events of a component while running."""
        return self.fields[name]
