# `keras.ops` has no annotations. What a type checker infers from the bodies is a union over all
# backends, with None where a backend lacks the function.
from typing import Any

def __getattr__(name: str) -> Any: ...
