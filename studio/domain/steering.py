"""What a picture keeps to while it is drawn: the edges or the depths of another one, by a ControlNet.

The types of these fields of a request. Pictures are named by the hash under which `studio.sources` keeps them.
"""

from typing import Annotated, Literal

from pydantic import Field

NO_CONTROL = "none"
USUAL_CONTROL_SCALE = 1.0

HintKind = Literal["edges", "depth"]
"""What a ControlNet reads: white edges on black, or a map whose light parts are near."""
ControlSourceName = Literal["picture", "map"]

ControlId = Annotated[
    str,
    Field(
        title="Keep to a shape — ControlNet",
        description="Draws along the edges, or into the depth, of a picture that is given. None: freely.",
    ),
]
ControlImage = Annotated[
    str,
    Field(
        pattern=r"^([0-9a-f]{64})?$",
        title="The shape to keep to — picture or map",
        description="A picture whose edges are found, or a map that is used as it is.",
    ),
]
ControlSource = Annotated[
    ControlSourceName,
    Field(
        title="What that is — picture or map",
        description="Picture: its edges are found first. Map: white lines on black, or near parts light, as it is.",
    ),
]
ControlScale = Annotated[
    float,
    Field(
        ge=0.0,
        le=2.0,
        title="How closely to keep to it — control scale",
        description="1 as it was trained, less leaves the prompt more room, 0 leaves it out.",
        json_schema_extra={"step": 0.05},
    ),
]
