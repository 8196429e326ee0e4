"""What `pyterrier-lir` does, a file for each command: the function's signature and docstring are its flags and help.

What is heavy is imported inside the functions, so that `--help` answers at once.
"""
