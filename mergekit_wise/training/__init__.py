"""The first step of the recipe: weights that are worth mixing. Knows no open_clip, no files and no terminal."""
