"""What a BERT is asked: to fill a gap, to label a text or a pair, to find an answer in a text.

Each answers as transformers' pipeline of that name does, by a model whose manifest names the task.
"""
