"""What a picture costs each family of vision models in tokens, and which size to send so that none is wasted.

Pure arithmetic: it opens no picture and asks nobody. The rules are those of the models' own processors in
transformers, which vLLM uses; docs/image-tokens.md tells where Ollama and llama.cpp differ.
"""

from vlmbatch.imaging.tokens.family import Family, Size
from vlmbatch.imaging.tokens.names import family_of

__all__ = ["Family", "Size", "family_of"]
