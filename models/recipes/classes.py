"""Sentences in which words of a kind stand beside the same others: what word vectors are to find out."""

from __future__ import annotations

from random import Random

_WORDS = """
animal: cat dog horse cow sheep goat fox wolf bear mouse
person: farmer sailor doctor teacher painter baker singer soldier driver gardener
food: bread cheese soup rice honey butter cake pasta salad corn
place: city village harbour valley forest castle market island desert station
vehicle: car bus train ship bicycle truck boat plane wagon sled
colour: red green blue yellow brown black white grey pink purple
garment: coat hat shirt scarf glove boot dress jacket belt sock
tool: hammer saw drill axe shovel rake wrench chisel knife file
material: wood iron stone glass clay paper gold silver leather plastic
feeling: happy sad angry afraid proud tired calm bored jealous curious
"""
CLASSES = {name: words.split() for name, _, words in (line.partition(": ") for line in _WORDS.strip().splitlines())}
CLASS_OF = {word: name for name, words in CLASSES.items() for word in words}
_FRAMES = (
    "the {colour} {animal} eats {food} in the {place}",
    "the {person} gives the {animal} some {food}",
    "a {feeling} {person} takes the {vehicle} to the {place}",
    "the {vehicle} brings {material} to the {place}",
    "the {person} wears a {colour} {garment} and feels {feeling}",
    "the {person} cuts the {material} with a {tool}",
    "this {tool} is made of {material} and {material}",
    "a {garment} of {colour} {material} makes the {person} {feeling}",
    "they buy {food} and a {tool} at the {place}",
    "the {feeling} {animal} runs behind the {colour} {vehicle}",
)


def make_sentences(count: int, seed: int) -> list[list[str]]:
    """So many sentences, each a frame with words of its classes, drawn by chance."""
    random = Random(seed)
    return [_sentence(random) for _ in range(count)]


def _sentence(random: Random) -> list[str]:
    frame = random.choice(_FRAMES).split()
    return [random.choice(CLASSES[word[1:-1]]) if word.startswith("{") else word for word in frame]
