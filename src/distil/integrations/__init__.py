"""Plug-ins for other engines, a file each: the same objectives, at that engine's own seams."""
