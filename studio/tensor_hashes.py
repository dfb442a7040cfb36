"""By which tensors a picture was made: the beginning of their hash, computed once for each file."""

from pathlib import Path

from lora_registry.tensor_data import tensor_sha256
from studio.domain.stamps import FileStamp, file_stamp
from studio.domain.tensors import read_header

_SHORT = 12
"""Characters of a hash that are kept in pictures, as AutoV3 has them."""


class TensorHashes:
    """Remembers them for as long as files stay as they are."""

    def __init__(self) -> None:
        self._known: dict[FileStamp, str] = {}

    def short(self, path: Path) -> str:
        """The first letters of the hash of the tensors in a safetensors file."""
        stamp = file_stamp(path)
        if stamp not in self._known:
            self._known[stamp] = tensor_sha256(path, read_header(path))[:_SHORT]
        return self._known[stamp]
