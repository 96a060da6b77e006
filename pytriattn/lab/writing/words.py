"""The words that tasks are made of."""

from __future__ import annotations

__all__ = ["COLOURS", "NODES", "NOISE", "PEOPLE", "PLACES", "THINGS", "WORDS"]


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split()))


COLOURS = _split("red blue green yellow black white silver golden purple orange pink grey brown")
THINGS = _split(
    "door gate safe garage cellar locker cabin archive harbour tower library workshop barn vault boat office kitchen "
    "attic bunker garden studio chapel stable lighthouse windmill"
)
PLACES = _split(
    "Halden Morwick Tarsea Brenford Ostley Kelmouth Varn Dunmore Eskdale Fairhaven Greymoor Ilmere Jarrow Lindale "
    "Norbeck Penrose Quarley Redcliff Stanmere Thornby Ulverston Westbay Yarmouth Ashby"
)
PEOPLE = _split(
    "Anna Bruno Clara David Elena Felix Greta Henry Ida Jonas Karin Louis Maria Nina Oscar Paula Robert Sarah Thomas "
    "Vera Walter Emma Peter Laura"
)
WORDS = _split(
    "apple river stone window paper silver forest market bridge candle winter summer engine mirror pencil ticket "
    "island valley carpet hammer button ladder needle pillow rocket saddle temple tunnel violin wallet anchor basket "
    "blanket castle copper dragon feather guitar helmet jacket ladder lemon magnet marble meadow napkin orange oyster "
    "parcel pepper planet pocket ribbon salmon shadow shovel sponge spring tablet thunder timber tomato trumpet turkey "
    "velvet walnut whistle zebra bakery camera desert garden hunter jungle kitchen legend museum number office palace"
)
NODES = _split("A B C D E F G H I J K L M N O P Q R S T U V W X Y Z")
NOISE = (
    "The kettle is on the stove.",
    "The rain has stopped again.",
    "A cart goes down the road.",
    "The dog sleeps by the fire.",
    "Here we are, and there we go.",
    "The wind moves the grass.",
)
