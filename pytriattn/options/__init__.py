"""How a cache is made and what is evicted from it: the same names from `Llama`'s keywords to the C++ engine."""
