"""What is on a picture of the world in words that a classifier can learn, and whether it is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping

from ldm.world.objects import objects
from ldm.world.scene import COLOURS, GROUNDS, PAIRS, PLACES, SHAPES, TEXTURES, Scene, Thing

NOTHING, OWN, ASTRAY = "nothing", "its own", "astray"
LAYOUTS = ("large middle", *(f"small {place}" for place in PLACES), *PAIRS, ASTRAY)
ATTRIBUTES = ("background", "thing", "colour", "texture", "place", "size")

Labels = Mapping[str, str]  # of one picture: what a classifier tells apart -> its value


def classes() -> dict[str, tuple[str, ...]]:
    """What a classifier tells apart, and the values of each in the order of its outputs.

    Of two things the first is the left or the upper one; ASTRAY is a thing that stands in none of the places.
    """
    names, colours, textures = (*objects(), *SHAPES), (OWN, *COLOURS), (OWN, *TEXTURES)
    return {
        "background": tuple(GROUNDS), "layout": LAYOUTS,
        "first": names, "first colour": colours, "first texture": textures,
        "second": (NOTHING, *names), "second colour": colours, "second texture": textures,
    }  # fmt: skip


def labels_of(scene: Scene) -> dict[str, str]:
    """The labels of a complete scene."""
    found = {"background": str(scene.ground), "layout": scene.relation or _layout(scene.things[0])}
    for slot, thing in zip(("first", "second"), (*scene.things, None), strict=False):
        found[slot] = thing.name if thing else NOTHING
        found[f"{slot} colour"] = (thing and thing.colour) or OWN
        found[f"{slot} texture"] = (thing and thing.texture) or OWN
    return found


def _layout(thing: Thing) -> str:
    return f"{thing.size} {thing.place}"


def scene_seen(seen: Labels) -> Scene | None:
    """The complete scene that labels name; None where they name none, as of a thing astray."""
    layout = seen["layout"]
    slots = ("first", "second") if layout in PAIRS else ("first",)
    unnamed = any(OWN in (seen[f"{s} colour"], seen[f"{s} texture"]) for s in slots if seen[s] in SHAPES)
    if layout == ASTRAY or (len(slots) == 2) != (seen["second"] != NOTHING) or unnamed:
        return None
    size, _, place = layout.partition(" ")
    stands = [("small", where) for where in PAIRS[layout]] if layout in PAIRS else [(size, place)]
    looks = [(seen[f"{s} colour"], seen[f"{s} texture"]) if seen[s] in SHAPES else (None, None) for s in slots]
    names = (seen[slot] for slot in slots)
    return Scene(seen["background"], tuple(
        Thing(name, *stand, *look) for name, stand, look in zip(names, stands, looks, strict=True)
    ))  # fmt: skip


def compare(wish: Scene, seen: Labels) -> dict[str, bool]:
    """Of each attribute that a wish asks for, whether it is seen; an unsaid place is the middle, a texture plain.

    Two things without a relation may stand in either order.
    """
    both = len(wish.things) == 2
    orders = [wish.things, wish.things[::-1]] if both and wish.relation is None else [wish.things]
    return max((_compare(wish, things, seen) for things in orders), key=lambda right: sum(right.values()))


def _compare(wish: Scene, things: tuple[Thing, ...], seen: Labels) -> dict[str, bool]:
    right = {} if wish.ground is None else {"background": seen["background"] == wish.ground}
    slots = list(zip(("first", "second"), things, strict=False))
    right["thing"] = all(seen[slot] == thing.name for slot, thing in slots)
    right["thing"] &= len(things) == 2 or seen["second"] == NOTHING
    coloured = [seen[f"{slot} colour"] == thing.colour for slot, thing in slots if thing.colour]
    textured = [seen[f"{slot} texture"] == (thing.texture or "plain") for slot, thing in slots if thing.is_shape]
    if coloured:
        right["colour"] = all(coloured)
    if textured:
        right["texture"] = all(textured)
    if len(things) == 2:
        right["place"] = seen["layout"] == wish.relation if wish.relation else seen["layout"] in PAIRS
        return right
    size, _, place = seen["layout"].partition(" ")
    right["place"] = place == (things[0].place or "middle")
    if things[0].size:
        right["size"] = size == things[0].size
    return right


def asked_by(wish: Scene) -> dict[str, str]:
    """What a wish asks for in words, by attribute, for reports."""
    things = wish.things
    place = wish.relation or ("side by side" if len(things) == 2 else things[0].place or "middle")
    return {
        "background": str(wish.ground),
        "thing": ", ".join(thing.name for thing in things),
        "colour": ", ".join(thing.colour or OWN for thing in things),
        "texture": ", ".join(thing.texture or ("plain" if thing.is_shape else OWN) for thing in things),
        "place": place,
        "size": str(things[0].size),
    }


def seen_as(seen: Labels) -> dict[str, str]:
    """What is seen, by attribute, in the words of ``asked_by``."""
    slots = ["first"] if seen["second"] == NOTHING else ["first", "second"]
    size, _, place = seen["layout"].partition(" ")
    alone = seen["layout"] not in (*PAIRS, ASTRAY)
    return {
        "background": seen["background"],
        "thing": ", ".join(seen[slot] for slot in slots),
        "colour": ", ".join(seen[f"{slot} colour"] for slot in slots),
        "texture": ", ".join(seen[f"{slot} texture"] for slot in slots),
        "place": place if alone else seen["layout"],
        "size": size if alone else "small",
    }
