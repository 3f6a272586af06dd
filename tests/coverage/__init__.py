"""The coverage matrix: tiny random Transformers of many families, ways to export them, and what a cell must show."""
