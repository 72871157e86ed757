"""`python -m jaxdd` equals `jaxdd`."""

from jaxdd.cli import main

if __name__ == "__main__":
    main()
