"""The tokens that a picture costs in each family of vision models, and the size to send that wastes none.

Pure arithmetic: it opens no picture and sends no request. The rules are those of the models' own processors
in transformers, which vLLM uses; docs/image-tokens.md lists the differences of Ollama and llama.cpp.
"""

from vlmbatch.imaging.tokens.family import Family, Size
from vlmbatch.imaging.tokens.names import family_of

__all__ = ["Family", "Size", "family_of"]
