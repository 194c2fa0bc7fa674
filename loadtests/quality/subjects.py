"""The stamps and backgrounds that the set of real cut-outs is made of, chosen by looking at them.

Left out of ``tuxpaint-stamps-default``: sides below 150 pixels, drawings, symbols, signs, flags,
glass, flames and light, stamps that are mirrored copies, and stamps with a piece of their ground.
Left out of the wallpapers: drawings and renderings (``gnome-backgrounds`` 43 has nothing else), and
whatever shows a subject of its own, since a model that keeps it too would not be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

STAMPS_PACKAGE = "tuxpaint-stamps-default"
STAMPS_FOLDER = "usr/share/tuxpaint/stamps"


@dataclass(frozen=True, slots=True)
class Background:
    """A background, or the part of a file that shows no subject."""

    package: str
    """Name of its package."""
    path: str
    """Path of the file in its package."""
    box: tuple[float, float, float, float] = (0, 0, 1, 1)
    """Left, top, right and bottom of the part, as shares of width and height."""


SUBJECTS: dict[str, tuple[str, ...]] = {
    "aeroplane": ("military/vehicles/f22_raptor.png", "vehicles/flight/planes/747.png"),
    "anthurium": ("plants/flowers/anthoorium.png",),
    "ape": ("animals/mammals/apes/chimp.png", "animals/mammals/apes/gorilla.png"),
    "apricot": ("food/fruit/Apricot_whole.png",),
    "armoured vehicle": ("military/vehicles/bradley.png", "military/vehicles/infantry-stryker.png"),
    "aubergine plant": ("plants/eggplant.png",),
    "avocado": ("food/fruit/avocado.png",),
    "balloon": ("vehicles/flight/balloon360.png",),
    "bear": ("animals/mammals/bears/bear.png", "animals/mammals/bears/european-bear.png"),
    "camel": ("animals/mammals/camel/camel.png",),
    "candle": ("seasonal/candle.png",),
    "candy cane": ("seasonal/christmas/Candy_cane_photo_1.png",),
    "capybara": ("animals/mammals/rodents/capybara.png",),
    "cattle": ("animals/mammals/bovines/bull.png", "animals/mammals/bovines/cow_white.png"),
    "cement mixer": ("household/tools/cementmixer.png",),
    "cherimoya": ("food/fruit/cherimoya.png",),
    "cherry": ("food/fruit/Cherry_Stella.png",),
    "Christmas tree": ("seasonal/christmas/Christmas_Tree_photo.png",),
    "compost bin": ("household/home_compost_bin.png",),
    "crane": ("animals/birds/crowned_crane.png",),
    "deer": ("animals/mammals/deer/doe.png", "animals/mammals/deer/wapiti.png"),
    "dog": ("animals/mammals/dogs/dog.png",),
    "dolphin": ("animals/mammals/aquatic/dolphin.png",),
    "drum": (
        "hobbies/music/percussion/cymbal_crash.png",
        "hobbies/music/percussion/drum_tomtom_floor.png",
        "hobbies/music/percussion/drumkit.png",
    ),
    "duck": ("animals/birds/duck.png",),
    "dumper": ("vehicles/construction/dumper.png",),
    "elephant": ("animals/mammals/elephant.png",),
    "equine": (
        "animals/mammals/equines/donkey.png",
        "animals/mammals/equines/donkey_eating.png",
        "animals/mammals/equines/zebra.png",
    ),
    "ferret": ("animals/mammals/ferret.png",),
    "firefighter": ("people/fireman200b.png", "people/fireman240a.png"),
    "flamingo": ("animals/birds/pink_flamingo.png",),
    "flower": (
        "plants/flowers/adeenia.png",
        "plants/flowers/anemone_red.png",
        "plants/flowers/bolsom.png",
        "plants/flowers/chemparathi.png",
        "plants/flowers/daffodil.png",
        "plants/flowers/plastic/chuvanna_plastic_poo.png",
    ),
    "fly": ("animals/insects/fly.png", "animals/insects/hoverfly.png"),
    "fox": ("animals/mammals/dogs/fox.png",),
    "frog": ("animals/amphibians/frog-1.png",),
    "gas cylinder": ("household/cylinder.png",),
    "ginger": ("food/spices/ginger.png",),
    "giraffe": ("animals/mammals/giraffe.png",),
    "gnu": (
        "animals/mammals/bovines/gnu-baby-stand.png",
        "animals/mammals/bovines/gnu-baby.png",
        "animals/mammals/bovines/gnu-sitting.png",
        "animals/mammals/bovines/gnu-stand.png",
    ),
    "goat": ("animals/mammals/bovines/goat.png", "animals/mammals/bovines/mountaingoat.png"),
    "gravestone": ("seasonal/halloween/grave-d.png",),
    "guineafowl": ("animals/birds/helmeted_guineafowl.png",),
    "heron": ("animals/birds/heron_greatblue_flying.png",),
    "inukshuk": ("town/monuments/inukshuk-photo.png",),
    "junk": ("vehicles/ship/chineseJunk.png",),
    "kiwi": ("food/fruit/kiwi.png",),
    "lander": ("space/apollo_lander.png",),
    "light bulb": ("household/Lightbulb.png",),
    "lion": ("animals/mammals/cats/lion-2.png",),
    "lobster": ("animals/fish/lobster.png",),
    "lorry": ("vehicles/emergency/firetruck.png", "vehicles/garbagetruck.png"),
    "mantis": ("animals/insects/mantis.png",),
    "marmot": ("animals/mammals/rodents/marmot.png",),
    "memorial": ("military/final-roll-call.png",),
    "mushroom": (
        "plants/mushrooms/cep.png",
        "plants/mushrooms/cep-1.png",
        "plants/mushrooms/cep-2.png",
    ),
    "orange": ("food/fruit/orange_seville.png",),
    "ostrich": ("animals/birds/nandou.png", "animals/birds/ostrich.png"),
    "otter": ("animals/mammals/aquatic/otter.png",),
    "owl": ("animals/birds/owl.png",),
    "palm": ("plants/trees/liberia-palm.png",),
    "paratrooper": ("military/paratrooper.png",),
    "peacock": ("animals/birds/peacock.png",),
    "pelican": ("animals/birds/pelican.png",),
    "penguin": ("animals/birds/magellanic_penguin.png",),
    "pie": ("seasonal/christmas/Mince_Pie.png",),
    "pig": ("animals/mammals/pig_golden.png", "animals/mammals/pig_golden2.png"),
    "planet": (
        "space/planets/1_mercury.png",
        "space/planets/5_jupiter.png",
        "space/planets/6_saturn.png",
        "space/planets/7_uranus.png",
        "space/planets/8_neptune.png",
    ),
    "pudding": ("seasonal/christmas/Christmas_pudding.png",),
    "rabbit": ("animals/mammals/rabbit_little.png", "animals/mammals/rodents/rabbit-2.png"),
    "racing car": ("vehicles/race/indycar.png",),
    "rambutan": ("plants/trees/rambutan.png",),
    "rhinoceros": ("animals/mammals/rhino_black.png",),
    "roast": ("seasonal/christmas/Roast_turkey.png",),
    "sea lion": ("animals/mammals/aquatic/sea_lion.png",),
    "seed head": ("plants/flowers/appooppanthady.png",),
    "sheep": ("animals/mammals/bovines/sheep.png",),
    "slug": ("animals/insects/Brown_slug.png",),
    "spade": ("household/tools/spade.png",),
    "squirrel": ("animals/mammals/rodents/squirrel.png",),
    "stethoscope": ("medical/stethoscope.png",),
    "strawberry": ("food/fruit/Strawberry2.png",),
    "tamarin": ("animals/mammals/apes/tamarin_emperor.png",),
    "thermometer": ("medical/mercurythermometer.png",),
    "thyme": ("plants/thyme.png",),
    "toilet": ("household/toilet.png",),
    "toucan": ("animals/birds/tucan.png",),
    "toy": ("seasonal/christmas/German_Christmas_toy.png",),
    "tree": ("plants/trees/birch.png", "plants/trees/holm_oak.png", "plants/trees/tree336.png"),
    "turkey": ("animals/birds/turkey.png",),
    "wheel": ("vehicles/7spoke256.png", "vehicles/wheel_tractor.png"),
    "woodlouse": ("animals/insects/Woodlouse.png",),
}
"""Stamps of each kind of subject, as paths in ``STAMPS_FOLDER``. A kind belongs to one part."""

_NATURE = "usr/share/backgrounds/mate/nature"
_PLASMA = "usr/share/wallpapers/{}/contents/images/2560x1600.jpg"

BACKGROUNDS: tuple[Background, ...] = (
    Background("lomiri-wallpapers-20.04", "usr/share/backgrounds/Infinite-Sea_by_Aury88.jpg"),
    Background(
        "lomiri-wallpapers-20.04",
        "usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg",
        (0.55, 0, 1, 1),
    ),
    Background(
        "lomiri-wallpapers-20.04",
        "usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg",
        (0, 0, 0.37, 1),
    ),
    Background("mate-backgrounds", f"{_NATURE}/Aqua.jpg", (0, 0, 0.5, 1)),
    Background("mate-backgrounds", f"{_NATURE}/Blinds.jpg"),
    Background("mate-backgrounds", f"{_NATURE}/Dune.jpg"),
    Background("mate-backgrounds", f"{_NATURE}/FreshFlower.jpg"),
    Background("mate-backgrounds", f"{_NATURE}/Garden.jpg", (0, 0, 0.35, 1)),
    Background("mate-backgrounds", f"{_NATURE}/GreenMeadow.jpg"),
    Background("mate-backgrounds", f"{_NATURE}/LadyBird.jpg", (0, 0.35, 0.6, 1)),
    Background("mate-backgrounds", f"{_NATURE}/RainDrops.jpg"),
    Background("mate-backgrounds", f"{_NATURE}/Storm.jpg"),
    Background("mate-backgrounds", f"{_NATURE}/TwoWings.jpg", (0, 0, 0.36, 1)),
    Background("mate-backgrounds", f"{_NATURE}/Wood.jpg"),
    Background("plasma-workspace-wallpapers", _PLASMA.format("BytheWater")),
    Background("plasma-workspace-wallpapers", _PLASMA.format("ColdRipple"), (0, 0, 1, 0.5)),
    Background("plasma-workspace-wallpapers", _PLASMA.format("DarkestHour")),
    Background("plasma-workspace-wallpapers", _PLASMA.format("EveningGlow"), (0, 0, 1, 0.52)),
    Background("plasma-workspace-wallpapers", _PLASMA.format("FallenLeaf"), (0, 0.5, 0.5, 1)),
    Background("plasma-workspace-wallpapers", _PLASMA.format("Grey")),
    Background("plasma-workspace-wallpapers", _PLASMA.format("Kite"), (0, 0, 0.62, 1)),
    Background("plasma-workspace-wallpapers", _PLASMA.format("OneStandsOut"), (0, 0, 0.56, 1)),
    Background("plasma-workspace-wallpapers", _PLASMA.format("Path")),
    Background("plasma-workspace-wallpapers", _PLASMA.format("summer_1am")),
)
"""Backgrounds that subjects are put over. A file belongs to one part of the set."""
