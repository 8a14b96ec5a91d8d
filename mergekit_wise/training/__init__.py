"""The first step of the recipe: weights that are worth mixing.

Knows modules, pixels and labels; knows no open_clip, no class names, no data set's name and no terminal. The one kind
of file that it reads and writes is its own state.
"""
