"""What a cache is made with and what is evicted from it: one set of names, from `Llama`'s keywords to the C++
engine.
"""
