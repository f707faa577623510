# The functions of `keras.ops` have no annotations. What a type checker infers from their bodies is a
# union over all backends, with None where a backend lacks the function.
from typing import Any

def __getattr__(name: str) -> Any: ...
