"""JSON schemas as grammars: rewriting what llama.cpp would pass over."""
