"""The `mlforge` command: parse, call one thing of the library, render."""
