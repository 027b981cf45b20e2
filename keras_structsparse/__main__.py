"""``python -m keras_structsparse``: the command line."""

from keras_structsparse.cli.main import main

if __name__ == "__main__":
    main()
