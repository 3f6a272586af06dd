"""``python -m onnxsmith`` is the ``onnxsmith`` command."""

from onnxsmith.cli.main import main

if __name__ == "__main__":
    main()
