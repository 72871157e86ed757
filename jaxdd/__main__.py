"""`python -m jaxdd` equals `jaxdd`."""

from jaxdd.runs.cli import main

if __name__ == "__main__":
    main()
