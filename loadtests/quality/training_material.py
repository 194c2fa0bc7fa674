"""What folio is trained on of the set: ``python -m loadtests.quality.training_material``.

It writes the stamps and the backgrounds of the calibration and development parts as folders. Among
them are smaller stamps, which have too few pixels to be measured with.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from PIL import Image

from loadtests.quality.cutouts import Material, fetch_packages, find_material, read_background
from loadtests.quality.packages import Package
from loadtests.quality.split import PARTS
from loadtests.quality.subjects import STAMPS_FOLDER, STAMPS_PACKAGE
from serve_app.errors import ForeedgeError

SMALL_SUBJECTS: dict[str, tuple[str, ...]] = {
    "antelope": ("animals/mammals/bovines/indian_blackbuck.png",),
    "apricot": ("food/fruit/apricot.png",),
    "astronaut": ("space/spacewalk.png",),
    "badger": ("animals/mammals/badger.png",),
    "ball": (
        "sports/basketball.png",
        "sports/cricketball.png",
        "sports/football.png",
        "sports/soccer.png",
        "sports/tennis_ball.png",
    ),
    "beaver": ("animals/mammals/rodents/beaver.png",),
    "binoculars": ("hobbies/binoculars.png",),
    "blackbird": ("animals/birds/blackbird.png",),
    "broccoli": ("food/vegetables/broccoli.png",),
    "bus": ("vehicles/masstransit/green_korean_bus.png",),
    "camel": ("animals/mammals/camel/dromedary.png",),
    "camera": ("hobbies/camera_35mm.png",),
    "candy cane": ("seasonal/christmas/Candy_cane_photo_2.png",),
    "cattle": (
        "animals/mammals/bovines/bison.png",
        "animals/mammals/bovines/cow.png",
        "animals/mammals/bovines/yak.png",
        "animals/mammals/bovines/zebu.png",
    ),
    "chicken": (
        "animals/birds/chicken_profile.png",
        "animals/birds/hen.png",
        "animals/birds/rooster.png",
    ),
    "corn": ("food/vegetables/corn.png",),
    "crow": ("animals/birds/crow.png",),
    "cuckoo": ("animals/birds/cuckoo.png",),
    "deer": ("animals/mammals/deer/caribou.png", "animals/mammals/deer/deer.png"),
    "doll": ("people/toys/grannysmith.png",),
    "duck": ("animals/birds/drake.png",),
    "dustbin": ("household/garbagecan.png", "household/wheelie_bin.png"),
    "equine": ("animals/mammals/equines/horse.png",),
    "firefighter": ("military/fireman240a.png",),
    "fish": (
        "animals/fish/bluegroper.png",
        "animals/fish/butterflyfish.png",
        "animals/fish/clownfish.png",
        "animals/fish/coraltrout.png",
        "animals/fish/dolphinfish.png",
        "animals/fish/lionfish.png",
        "animals/fish/stripedfish.png",
    ),
    "frog": ("animals/amphibians/frog.png",),
    "goose": ("animals/birds/gander.png",),
    "grasshopper": ("animals/insects/grasshopper.png",),
    "gravestone": (
        "seasonal/halloween/grave-a.png",
        "seasonal/halloween/grave-e.png",
        "seasonal/halloween/grave-f.png",
        "seasonal/halloween/grave-g.png",
        "seasonal/halloween/grave-h.png",
        "seasonal/halloween/grave-i.png",
        "seasonal/halloween/grave-j.png",
    ),
    "gull": ("animals/birds/seagull.png", "animals/birds/silver-gull.png"),
    "hammer": ("household/tools/hammer.png", "household/tools/mallet_metal.png"),
    "heron": ("animals/birds/heron_greatblue.png",),
    "hippopotamus": ("animals/mammals/hippopotamus.png",),
    "hornet": ("animals/insects/hornet.png",),
    "iguana": ("animals/lizards/iguana.png",),
    "kangaroo": ("animals/marsupials/kangaroo.png",),
    "kettle": ("household/kettle.png",),
    "koala": ("animals/marsupials/koala.png",),
    "lark": ("animals/birds/lark.png",),
    "lemon": ("food/fruit/lemon.png",),
    "letter box": ("town/usps_mailbox.png",),
    "lettuce": ("plants/lettuce_bolted.png",),
    "magpie": ("animals/birds/magpie.png",),
    "moth": ("animals/insects/xanthia.png",),
    "mouse": ("animals/mammals/rodents/mouse.png",),
    "mug": ("household/dishes/mug.png",),
    "orange": ("food/fruit/mandarine.png", "food/fruit/sliced_orange.png"),
    "parrot": ("animals/birds/adelaide-rosella.png",),
    "penguin": ("animals/birds/little-penguin.png", "animals/birds/penguin.png"),
    "pigeon": ("animals/birds/pigeon.png",),
    "pinecone": ("plants/trees/pinecone.png",),
    "pitcher": ("household/dishes/pitcher_small.png",),
    "plaster": ("medical/bandage_adhesive.png",),
    "pliers": ("household/tools/plyers.png",),
    "probe": ("space/voyager2.png",),
    "quetzal": ("animals/birds/quetzal.png",),
    "rat": ("animals/mammals/rodents/rat.png",),
    "rubber duck": ("household/rubberduck.png",),
    "saw": ("household/tools/saw.png",),
    "seahorse": ("animals/fish/seahorse.png",),
    "sheep": ("animals/mammals/bovines/ram.png", "animals/mammals/bovines/sheep_lamb.png"),
    "shell": ("animals/shellfish/abalone.png", "animals/shellfish/murray-mussel.png"),
    "string instrument": (
        "hobbies/music/string/cello.png",
        "hobbies/music/string/guitar2.png",
        "hobbies/music/string/guitar_classical.png",
        "hobbies/music/string/guitar_electric.png",
        "hobbies/music/string/guitar_electric_bass.png",
        "hobbies/music/string/violin.png",
    ),
    "syringe": ("medical/syringe.png",),
    "tiger": ("animals/mammals/cats/tiger.png",),
    "toolbox": ("household/tools/toolbox.png",),
    "tricycle": ("vehicles/cycle/pink_tricycle.png",),
    "trumpet": ("hobbies/music/brass/trumpet.png",),
    "vulture": ("animals/birds/vulture.png",),
    "walnut": ("food/nuts/walnut.png",),
    "whale": ("animals/mammals/aquatic/orca.png", "animals/mammals/aquatic/whale.png"),
    "wombat": ("animals/marsupials/wombat.png",),
    "wreath": ("seasonal/christmas/xmaswreath.png",),
    "wrench": ("household/tools/wrench.png", "household/tools/wrench_plumbers.png"),
}
"""Real stamps that ``subjects`` leaves out, by kind. Most of them have a side below 150 pixels.

None is of a kind of the test part, such as flowers, trees and dogs, however small it is.
"""


def write_stamps(packages: list[Package], folder: Path) -> int:
    """Write the stamps of the training into a folder, and return their number.

    Args:
        packages: Unpacked packages of the set.
        folder: Folder, which is made if it is missing.

    Raises:
        SourceNotFound: The packages have no stamps of a part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    [root] = [each.folder / STAMPS_FOLDER for each in packages if each.name == STAMPS_PACKAGE]
    files = [root / path for paths in SMALL_SUBJECTS.values() for path in paths]
    for material in _trained_on(packages):
        files += [file for _, file in material.subjects]
    found = [file for file in files if file.is_file()]
    for file in found:
        shutil.copyfile(file, folder / "_".join(file.relative_to(root).parts))
    return len(found)


def write_wallpapers(packages: list[Package], folder: Path) -> int:
    """Write the backgrounds of the training into a folder, and return their number.

    Args:
        packages: Unpacked packages of the set.
        folder: Folder, which is made if it is missing.

    Raises:
        SourceNotFound: The packages have no backgrounds of a part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backgrounds = [each for material in _trained_on(packages) for each in material.backgrounds]
    for number, each in enumerate(backgrounds):
        Image.fromarray(read_background(*each)).save(folder / f"{number:02}.png")
    return len(backgrounds)


def _trained_on(packages: list[Package]) -> list[Material]:
    """Return the stamps and backgrounds of every part but that which results are measured on."""
    return [find_material(packages, part) for part in PARTS if part != "test"]


def main() -> None:
    """Write the folders ``stamps`` and ``wallpapers``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="folder to write into")
    folder = parser.parse_args().folder
    packages = fetch_packages()
    stamps = write_stamps(packages, folder / "stamps")
    backgrounds = write_wallpapers(packages, folder / "wallpapers")
    print(f"{stamps} stamps and {backgrounds} backgrounds in {folder}")


if __name__ == "__main__":
    try:
        main()
    except ForeedgeError as error:
        sys.exit(f"error: {error.code}: {error.message}")
