"""One reader for each format: whatever is wrong with a file becomes one line that names it and says how to mend it.

Sizes are checked before anything is allocated, and nothing but a regular file is opened: a pipe would wait for ever.
"""
