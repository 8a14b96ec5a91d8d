"""A checkpoint becomes a torch module with a head. The only room that imports open_clip."""
