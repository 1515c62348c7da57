"""`python -m langchain_glm4v.cli`: the command `glm4v` where it is not on the path."""

import sys

from langchain_glm4v.cli import main

if __name__ == "__main__":
    sys.exit(main())
